// Light, dark, or as the system has it: before anything is painted, so that nothing flashes. The one thing that outlives a tab.
"use strict";
(() => {
  const NAME = "openline.theme";
  const THEMES = ["system", "light", "dark"];

  function chosen() {
    try {
      const theme = localStorage.getItem(NAME);
      return THEMES.includes(theme) ? theme : "system";
    } catch {
      return "system"; // Storage may be forbidden.
    }
  }

  function show(theme) {
    document.documentElement.dataset.theme = theme;
  }

  show(chosen());
  window.openlineTheme = {
    get current() {
      return document.documentElement.dataset.theme;
    },
    next() {
      const theme = THEMES[(THEMES.indexOf(this.current) + 1) % THEMES.length];
      show(theme);
      try {
        localStorage.setItem(NAME, theme);
      } catch {
        // Then it holds for this page.
      }
      return theme;
    },
  };
})();
