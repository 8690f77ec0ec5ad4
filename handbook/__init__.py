"""Makes a site of `docs/`: what MkDocs is told beside `mkdocs.yml`. Nothing of it is installed with the programs."""
