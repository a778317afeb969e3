// The pages' types, and their words: nothing here starts a browser.

import assert from "node:assert/strict";
import { readFileSync, readdirSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { test } from "node:test";
import { pathToFileURL } from "node:url";

import { run } from "./original.mjs";
import { ROOT, artefacts } from "./server.mjs";

const PAGES = join(ROOT, "src/web/pages");
const LANGUAGES = ["it", "en", "de"];
const CATALOGUES = join(PAGES, "i18n");

const catalogue = async (folder, language) => (await import(pathToFileURL(join(folder, `${language}.js`)))).default;
const scripts = (folder) => readdirSync(folder, { recursive: true }).filter((name) => name.endsWith(".js")).map((name) => join(folder, name));

test("every page's types agree", { timeout: 120_000 }, async () => {
  const compiler = createRequire(import.meta.url).resolve("typescript/bin/tsc");
  const options = ["--noEmit", "--allowJs", "--checkJs", "--strict", "--noUncheckedIndexedAccess", "--target", "es2022", "--module", "esnext", "--moduleResolution", "bundler", "--lib", "es2022,dom,dom.iterable"];
  const { status, stdout, stderr } = await run(process.execPath, [compiler, ...options, ...scripts(PAGES)]);
  writeFileSync(join(artefacts("types"), "tsc.log"), stdout + stderr);
  assert.equal(status, 0, stdout + stderr);
});

/** What stands for something else in a text. */
const places = (text) => [...text.matchAll(/\{(\w+)\}/g)].map(([, name]) => name).sort();

for (const folder of [CATALOGUES, ...readdirSync(CATALOGUES, { withFileTypes: true }).filter((entry) => entry.isDirectory()).map((entry) => join(CATALOGUES, entry.name))]) {
  test(`no language misses a word: ${folder.slice(PAGES.length)}`, async () => {
    const italian = await catalogue(folder, "it");
    for (const language of LANGUAGES) {
      const words = await catalogue(folder, language);
      assert.deepEqual(Object.keys(words).sort(), Object.keys(italian).sort(), language);
      for (const [key, text] of Object.entries(words)) {
        assert.ok(text.trim() !== "", `${language}: ${key}`);
        assert.deepEqual(places(text), places(italian[key]), `${language}: ${key}`);
      }
    }
  });
}

test("no word is kept that no page says", async () => {
  const code = [...scripts(PAGES), ...readdirSync(PAGES).filter((name) => name.endsWith(".html")).map((name) => join(PAGES, name))]
    .filter((path) => !path.startsWith(join(CATALOGUES, "/")))
    .map((path) => readFileSync(path, "utf8"))
    .join("\n");
  // Keys that are made of a word of the server's: `role.${role}`, plural("code.attempts", n).
  const made = [...code.matchAll(/`([\w.-]+\.)\$\{/g)].map(([, prefix]) => prefix);
  const idle = Object.keys(await catalogue(CATALOGUES, "it")).filter((key) => {
    const stem = key.replace(/\.(one|other)$/, "");
    return !code.includes(`"${key}"`) && !code.includes(`"${stem}"`) && !made.some((prefix) => key.startsWith(prefix));
  });
  assert.deepEqual(idle, []);
});
