// The overviews as they come, and what is asked of the gateway: each with the key in a header, to this address alone.

const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 8_000;
// A gateway that says nothing for so long is gone: overviews come every second, and pings all the same.
const SILENCE_MS = 8_000;

const place = (path) => new URL(`../${path}`, import.meta.url);

/** A refusal, as the gateway says it: `status`, `reason` and `message`. */
export class Refused extends Error {
  constructor(status, problem) {
    const detail = Array.isArray(problem.detail) ? problem.detail.map((each) => each.msg).join("; ") : problem.detail;
    super(typeof detail === "string" && detail ? detail : `HTTP ${status}`);
    this.status = status;
    this.reason = problem.reason ?? "";
  }

  get isOfTheKey() {
    return this.status === 401 || this.status === 403;
  }
}

async function refusal(response) {
  return new Refused(response.status, await response.json().catch(() => ({})));
}

/** One request; its answer. Throws Refused, or what `fetch` throws when nobody is there. */
export async function ask(key, method, path, body) {
  const response = await fetch(place(path), {
    method,
    headers: { "X-API-Key": key },
    body: body === undefined ? undefined : JSON.stringify(body),
    cache: "no-store",
    credentials: "omit",
    referrerPolicy: "no-referrer",
    signal: AbortSignal.timeout(15_000),
  });
  if (!response.ok) throw await refusal(response);
  return response.status === 204 ? null : response.json();
}

/** Watches until `stop`. Calls `on.overview`, `on.lost(why, waitMs)` before each new attempt, and `on.refused` for good. */
export class Stream {
  #stopped = new AbortController();
  #failures = 0;

  constructor(key, intervalS, on) {
    this.key = key;
    this.intervalS = intervalS;
    this.on = on;
  }

  stop() {
    this.#stopped.abort();
  }

  async run() {
    while (!this.#stopped.signal.aborted) {
      let why = "the gateway ended it";
      try {
        await this.#watch();
      } catch (failure) {
        if (this.#stopped.signal.aborted) return;
        if (failure instanceof Refused && failure.isOfTheKey) {
          this.on.refused(failure);
          return;
        }
        why = failure instanceof Refused ? failure.message : "the gateway does not answer";
      }
      // Up to so long, at random: many pages must not come back all at once.
      const bound = Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** this.#failures);
      this.#failures += 1;
      this.on.lost(why);
      await pause(FIRST_WAIT_MS / 2 + Math.random() * bound, this.#stopped.signal);
    }
  }

  async #watch() {
    const attempt = new AbortController();
    const signal = AbortSignal.any([this.#stopped.signal, attempt.signal]);
    let watchdog = setTimeout(() => attempt.abort(), SILENCE_MS);
    const heard = () => {
      clearTimeout(watchdog);
      watchdog = setTimeout(() => attempt.abort(), SILENCE_MS);
    };
    try {
      const response = await fetch(place(`admin/overview/events?interval=${this.intervalS}`), {
        headers: { "X-API-Key": this.key, Accept: "text/event-stream" },
        cache: "no-store",
        credentials: "omit",
        referrerPolicy: "no-referrer",
        signal,
      });
      if (!response.ok) throw await refusal(response);
      for await (const event of events(response.body, heard)) {
        if (event.name === "overview") {
          this.#failures = 0;
          this.on.overview(event.data);
        } else if (event.name === "error") {
          throw new Refused(event.data.status, event.data);
        }
      }
    } finally {
      clearTimeout(watchdog);
      attempt.abort();
    }
  }
}

/** Server-sent events of a response's body (WHATWG HTML, 9.2), as far as this gateway writes them. */
async function* events(body, heard) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    heard();
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const fields = new Map(block.split("\n").map((line) => [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 2)]));
      if (fields.has("event")) yield { name: fields.get("event"), data: JSON.parse(fields.get("data")) };
    }
  }
}

function pause(ms, signal) {
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, ms);
    signal.addEventListener("abort", end);
  });
}
