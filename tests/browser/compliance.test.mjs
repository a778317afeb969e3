// The compliance console on a call that was really recorded, in which someone dropped and came back: found by a fiscal
// code, opened with a reason, played with every camera in step, checked, held, kept, copied, and every look written down.

import assert from "node:assert/strict";
import { createReadStream, existsSync, mkdtempSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";

import { run } from "./original.mjs";
import { launch } from "./people.mjs";
import { LOADTEST, ROOT, Server, artefacts, until } from "./server.mjs";

/** As session.test.mjs makes one: a debug build, so the limits are not those of a machine that serves. */
const CALL = "call --rooms 1 --duration 18s --drop-after 6s --max-join 10s --max-first-media 10s --max-loss 1".split(" ");
/** The loadtest's delegato has it. */
const FISCAL_CODE = "RSSMRA80A41H501W";
const REASON = "Reclamo 2026/17";
const LANGUAGES = ["it", "en", "de"];
const SIZES = { desktop: { width: 1280, height: 900 }, phone: { width: 360, height: 740 } };
/** Farthest that two cameras may be from each other, milliseconds. */
const IN_STEP_MS = 50;
const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

const folder = artefacts("compliance");
const data = mkdtempSync(join(tmpdir(), "sportello-"));
let server, browser, room;

/** A tab of its own, in which somebody signs in. */
async function tab({ language = "it", viewport = SIZES.desktop, key = server.keys.compliance } = {}) {
  const context = await browser.newContext({ locale: "it-IT", viewport, acceptDownloads: true });
  const page = await context.newPage();
  page.said = [];
  page.on("console", (message) => page.said.push(`${message.type()}: ${message.text()}`));
  page.on("pageerror", (error) => page.said.push(`pageerror: ${error.message}`));
  await page.goto(`${server.url}/compliance?lang=${language}`);
  if (key) await signIn(page, key);
  return page;
}

async function signIn(page, key) {
  await page.locator("#key").fill(key);
  await page.locator("#sign-in").click();
}

async function find(page, fields = { fiscal: FISCAL_CODE }) {
  await page.locator("#search-reason").fill(REASON);
  for (const [name, value] of Object.entries(fields)) await page.locator(`#search-${name}`).fill(value);
  const answered = page.waitForResponse((response) => response.url().endsWith("/v1/recordings/search"));
  await page.locator("#search-submit").click();
  await answered;
  await page.locator("#search-submit:enabled").waitFor();
  await page.locator("#search-summary:not([hidden])").waitFor();
}

async function open(page) {
  await page.locator(`[data-room="${room}"] button`).click();
  await page.locator("#ask-yes").click();
  await page.locator("#player-play").waitFor();
}

/** What is wrong with the page for whoever cannot see, or not use a mouse: levels A and AA. */
async function accessible(page, what) {
  // From the node of the tests, and not as a script of the page: its policy stays as it is.
  await page.evaluate(AXE);
  const { violations } = await page.evaluate(() =>
    globalThis.axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"] }),
  );
  const found = violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html, any }) => `${html.slice(0, 200)} ${any[0]?.message ?? ""}`).join(" | ")}`);
  assert.deepEqual(found, [], what);
}

async function fits(page, what) {
  const { scroll, inner } = await page.evaluate(() => ({ scroll: document.documentElement.scrollWidth, inner: innerWidth }));
  assert.ok(scroll <= inner, `${what}: ${scroll} px on ${inner} px`);
}

/**
 * Watches the cameras for so many seconds: how far apart they are on the meeting's time line, by their clocks at each
 * look (the largest counts) and by the frames that were shown last, in milliseconds.
 */
async function spread(page, seconds) {
  return page.evaluate(async (seconds) => {
    const videos = [...document.querySelectorAll("[data-lane] video")];
    const shown = new Map();
    let watching = true;
    for (const video of videos) {
      const told = (_, { mediaTime, expectedDisplayTime }) => {
        shown.set(video, { place: mediaTime + Number(video.dataset.from), at: expectedDisplayTime });
        if (watching) video.requestVideoFrameCallback(told);
      };
      video.requestVideoFrameCallback(told);
    }
    const [clocks, frames] = [[], []];
    const began = performance.now();
    while (performance.now() - began < 1000 * seconds) {
      await new Promise((resolve) => setTimeout(resolve, 50));
      const playing = videos.filter((video) => !video.paused && !video.seeking && !video.ended && video.readyState >= 3);
      if (playing.length < 2) continue;
      const places = playing.map((video) => video.currentTime + Number(video.dataset.from));
      clocks.push(1000 * (Math.max(...places) - Math.min(...places)));
      // Each frame at the moment for which it was meant: they are not shown at the same one.
      const behind = playing.filter((video) => shown.has(video)).map((video) => shown.get(video).place - shown.get(video).at / 1000);
      if (behind.length === playing.length) frames.push(1000 * (Math.max(...behind) - Math.min(...behind)));
    }
    watching = false;
    // When a frame is shown hangs on the screen's beat and the machine's load, so of those it is the middle that counts.
    const middle = (list) => list.sort((a, b) => a - b)[list.length >> 1] ?? Infinity;
    return { looks: clocks.length, clocks: Math.round(Math.max(...clocks)), frames: Math.round(middle(frames)) };
  }, seconds);
}

const seconds = (page) =>
  page.locator("#player-time").innerText().then((text) => text.split(" / ").map((part) => part.split(":").reduce((sum, one) => 60 * sum + Number(one), 0)));

/** Plays, or holds, whatever it did before. */
async function play(page, wanted) {
  const button = page.locator("#player-play");
  if ((await button.getAttribute("data-on")) !== String(wanted)) await button.click();
}

const playing = (page, count) =>
  page.waitForFunction((count) => [...document.querySelectorAll("[data-lane] video")].filter((video) => !video.paused && !video.seeking && video.readyState >= 3).length >= count, count, { timeout: 15_000 });

describe("the compliance console", () => {
  let page;

  before(async () => {
    server = await Server.start({ data, log: join(folder, "server.log") });
    const called = await run(LOADTEST, [...CALL, "--url", server.url], { env: { ...process.env, SPORTELLO_BOOKING_KEY: server.keys.booking } });
    assert.equal(called.status, 0, called.stdout + called.stderr);
    const packages = join(data, "packages");
    const names = () => (existsSync(packages) ? readdirSync(packages, { recursive: true }) : []);
    await until("the package is sealed", () => names().find((name) => name.endsWith("manifest.jws")), 300_000);
    browser = await launch();
  });

  after(async () => {
    await browser?.close();
    await server?.stop();
    rmSync(data, { recursive: true, force: true });
  });

  test("lets nobody in whose key is for something else, and keeps the key in the tab alone", async () => {
    page = await tab({ key: null });
    await accessible(page, "sign in");
    await signIn(page, server.keys.booking);
    await page.locator("#problem p").waitFor();
    assert.match(await page.locator("#problem").innerText(), /non è valida/);
    await signIn(page, server.keys.compliance);
    await page.locator("#search-form").waitFor();
    await page.reload();
    await page.locator("#search-form").waitFor();
    const stored = await page.evaluate(() => [localStorage.length, document.cookie]);
    assert.deepEqual(stored, [0, ""]);
    await page.locator("#sign-out").click();
    await page.locator("#key").waitFor();
    await page.reload();
    await page.locator("#key").waitFor();
    await signIn(page, server.keys.compliance);
  });

  test("finds a recording by the fiscal code, the day, the office, the counter and the room", async () => {
    await find(page);
    assert.equal(await page.locator("[data-room]").count(), 1);
    room = await page.locator("[data-room]").getAttribute("data-room");
    assert.match(await page.locator(`[data-room="${room}"]`).innerText(), /Sigillata/);
    assert.equal(await page.evaluate(() => document.activeElement?.id), "search-summary", "what was found is read out");
    await accessible(page, "search");
    const today = new Intl.DateTimeFormat("sv-SE", { timeZone: "Europe/Rome" }).format(new Date());
    const fields = { from: today, to: today, office: "Prova di carico", counter: "Sportello 0", room };
    await find(page, fields);
    assert.equal(await page.locator("[data-room]").count(), 1);
    for (const other of [{ fiscal: "VRDLGI70A01H501V" }, { office: "Milano" }, { from: "2040-01-01", to: "" }]) {
      await find(page, { ...fields, fiscal: FISCAL_CODE, ...other });
      assert.equal(await page.locator("[data-room]").count(), 0, JSON.stringify(other));
    }
    await find(page, { from: "", to: "", office: "", counter: "", room: "", fiscal: FISCAL_CODE });
  });

  test("asks for a reason first, and shows nothing without one", async () => {
    await page.locator(`[data-room="${room}"] button`).click();
    await accessible(page, "the question for a reason");
    await page.locator("#ask-text").fill("   ");
    await page.locator("#ask-yes").click();
    assert.ok(await page.locator("#ask-reason").isVisible());
    await page.keyboard.press("Escape");
    await page.locator("#ask-reason").waitFor({ state: "detached" });
    assert.equal(await page.locator("#player-play").count(), 0);
    await open(page);
    const facts = await page.locator("#facts").innerText();
    for (const said of [/operator 0/, /delegato 0/, /delegante 0/, /Non completato/, /consenso alle/, /dalle .* alle .*/]) assert.match(facts, said);
    assert.equal(await page.locator("[data-lane]").count(), 3);
    await accessible(page, "a recording");
  });

  test("plays every camera in step with one clock", async () => {
    await play(page, true);
    await playing(page, 3);
    await page.waitForTimeout(1_000);
    const told = await spread(page, 4);
    console.log("while playing", JSON.stringify(told));
    assert.ok(told.looks > 20 && told.clocks <= IN_STEP_MS && told.frames <= IN_STEP_MS, JSON.stringify(told));
  });

  test("keeps them in step after ten seeks", async () => {
    await play(page, true);
    const [, length] = await seconds(page);
    // None within a second before someone comes back: for that moment see the test of the gap.
    const places = [0.4, 0.9, 0.1, 0.75, 0.3, 0.02, 0.68, 0.25, 0.85, 0.7];
    const worst = { clocks: 0, frames: 0 };
    for (const part of places) {
      const place = part * length;
      const began = Date.now();
      await page.locator("#player-seek").evaluate((seek, place) => {
        seek.value = String(place);
        seek.dispatchEvent(new Event("input", { bubbles: true }));
      }, place);
      await playing(page, 2);
      const took = Date.now() - began;
      await page.waitForTimeout(300);
      const told = await spread(page, 1);
      const [now] = await seconds(page);
      console.log("after a seek", JSON.stringify({ place, now, took, ...told }));
      assert.ok(now >= place - 1 && now <= place + 1 + (Date.now() - began) / 1000, `${place}: ${now}`);
      assert.ok(told.looks > 5 && told.clocks <= IN_STEP_MS && told.frames <= IN_STEP_MS, JSON.stringify(told));
      worst.clocks = Math.max(worst.clocks, told.clocks);
      worst.frames = Math.max(worst.frames, told.frames);
    }
    console.log("worst of ten seeks", JSON.stringify(worst));
    await page.locator("#player-rate").selectOption("2");
    await page.waitForTimeout(800);
    const fast = await spread(page, 1);
    console.log("at twice the speed", JSON.stringify(fast));
    await page.locator("#player-rate").selectOption("1");
    assert.ok(fast.clocks <= IN_STEP_MS, JSON.stringify(fast));
  });

  test("shows a gap where someone was away, and goes over it", async () => {
    const film = page.locator('[data-lane][data-role="delegato"]');
    await play(page, false);
    await page.locator("#player-seek").evaluate((seek) => {
      seek.value = "7";
      seek.dispatchEvent(new Event("input", { bubbles: true }));
    });
    await film.getByText("Nessuna ripresa").waitFor();
    await play(page, true);
    await film.getByText("Nessuna ripresa").waitFor({ state: "hidden", timeout: 20_000 });
    await playing(page, 3);
    await page.waitForTimeout(1_000);
    const told = await spread(page, 1);
    console.log("after the gap", JSON.stringify(told));
    assert.ok(told.clocks <= IN_STEP_MS && told.frames <= IN_STEP_MS, JSON.stringify(told));
  });

  test("mutes and unmutes each voice alone, and by keyboard", async () => {
    const muted = () => page.evaluate(() => [...document.querySelectorAll("[data-lane] video")].map((video) => video.muted));
    const button = page.locator('[data-lane="1"] [data-mute]');
    await button.focus();
    await page.keyboard.press("Enter");
    assert.deepEqual(await muted(), [false, true, false]);
    assert.match(await button.getAttribute("aria-label"), /^Ridai voce: /);
    await page.keyboard.press("Space");
    assert.deepEqual(await muted(), [false, false, false]);
    await play(page, true);
    await page.locator("#player-play").focus();
    await page.keyboard.press("Enter");
    const [before] = await seconds(page);
    await page.locator("#player-seek").focus();
    for (let n = 0; n < 3; n += 1) await page.keyboard.press("ArrowLeft");
    const [now] = await seconds(page);
    assert.ok(Math.abs(before - 3 - now) <= 1, `${before} ${now}`);
  });

  test("marks the ledger's events on the time line, and jumps to one from the list", async () => {
    assert.ok((await page.locator(".mark").count()) >= 6);
    const event = page.locator('[data-event="disconnected"]').first();
    const time = (await event.locator(".event-time").innerText()).split(":").reduce((sum, one) => 60 * sum + Number(one), 0);
    await event.focus();
    await page.keyboard.press("Enter");
    const [now] = await seconds(page);
    assert.ok(time > 5 && Math.abs(now - time) <= 1, `${time} ${now}`);
  });

  test("checks the recording and says so in words", async () => {
    await page.locator("#verify").click();
    const result = page.locator("[data-verified]");
    await result.waitFor({ timeout: 60_000 });
    assert.match(await result.innerText(), /La registrazione è integra\. La firma è valida e tutti i \d+ file/);
  });

  test("places and lifts a hold, sets a date, and destroys nothing that is to be kept", async () => {
    const answer = async (reason) => {
      await page.locator("#ask-text").fill(reason);
      await page.locator("#ask-yes").click();
      await page.locator("#ask-reason").waitFor({ state: "detached" });
    };
    await page.locator("#hold").click();
    await answer("Procura di Roma, proc. 1234/26");
    await page.locator("#custody-hold", { hasText: "Procura di Roma" }).waitFor();
    assert.equal(await page.locator("#announce").innerText(), "La registrazione è bloccata.");
    await page.locator("#retention").click();
    await page.locator("#retention-date").fill("2036-05-20");
    await answer("Massimario 2026, voce 12");
    await page.locator("#custody-until", { hasText: "20 maggio 2036" }).waitFor();
    await page.locator("#destroy").click();
    await page.locator("#ask-text").fill("Prova");
    await page.locator("#ask-yes").click();
    assert.ok(await page.locator("#ask-reason").isVisible(), "it must be confirmed");
    await accessible(page, "the question before a destruction");
    await page.screenshot({ path: join(folder, "destroy-it-desktop.png") });
    await page.locator("#ask-sure").check();
    await page.locator("#ask-yes").click();
    await page.locator("#problem p").waitFor();
    assert.match(await page.locator("#problem").innerText(), /bloccata/);
    await page.locator("#problem button").click();
    await page.locator("#hold").click();
    await answer("Procedimento archiviato");
    await page.locator("#custody-hold", { hasText: "No" }).waitFor();
  });

  test("gives the package and an export, and the package verifies", async () => {
    const [download] = await Promise.all([page.waitForEvent("download"), page.locator("#download-package").click()]);
    const tar = join(folder, "package.tar");
    await download.saveAs(tar);
    const { stdout } = await run("tar", ["-tf", tar]);
    for (const name of ["manifest.json", "manifest.jws", "originals/", "ledger.jsonl"]) assert.ok(stdout.includes(name), stdout);
    rmSync(tar);
    await page.locator("#export-webm").click();
    await page.locator("#export-file").waitFor({ timeout: 300_000 });
    const [made] = await Promise.all([page.waitForEvent("download"), page.locator("#export-file").click()]);
    const head = [];
    for await (const piece of createReadStream(await made.path(), { end: 3 })) head.push(piece);
    assert.equal(Buffer.concat(head).toString("hex"), "1a45dfa3", "a WebM");
  });

  test("tells every look and change, with its reason", async () => {
    await page.locator("#history-again").click();
    const done = ["access_opened", "manifest_read", "ledger_read", "original_read", "verification_asked", "hold_placed", "hold_lifted", "retention_set", "package_read", "export_asked", "export_read"];
    for (const action of done) await page.locator(`#history [data-action="${action}"]`).first().waitFor({ timeout: 5_000 });
    const words = await page.locator("#history").innerText();
    for (const reason of [REASON, "Procura di Roma, proc. 1234/26", "Massimario 2026, voce 12", "Procedimento archiviato"]) assert.ok(words.includes(reason), reason);
    assert.ok(!words.includes(FISCAL_CODE));
    await accessible(page, "a recording, at the end");
    const wrong = page.said.filter((line) => !line.includes("Failed to load resource"));
    assert.deepEqual(wrong, [], "the page says nothing on its console: no breach of its policy, no error");
    await page.context().close();
  });

  for (const language of LANGUAGES) {
    for (const [name, viewport] of Object.entries(SIZES)) {
      test(`reads well in ${language} on a ${name}`, async () => {
        const page = await tab({ language, viewport, key: null });
        const shot = (screen, options) => page.screenshot({ path: join(folder, `${screen}-${language}-${name}.png`), ...options });
        await shot("signin", { fullPage: true });
        await signIn(page, server.keys.compliance);
        await find(page);
        await shot("search", { fullPage: true });
        await fits(page, "search");
        await page.locator(`[data-room="${room}"] button`).click();
        await shot("reason");
        await page.locator("#ask-yes").click();
        await page.locator("#player-play").waitFor();
        await play(page, true);
        await playing(page, 2);
        await page.waitForTimeout(1_000);
        await play(page, false);
        await shot("recording", { fullPage: true });
        await accessible(page, `${language} ${name}`);
        await fits(page, "a recording");
        await page.setViewportSize({ width: 320, height: 640 });
        await fits(page, "a recording on 320 px");
        await page.context().close();
      });
    }
  }
});

test("the console's catalogues have the same keys, the same gaps to fill, and every word of the server", async () => {
  const of = (language) => import(join(ROOT, `src/web/pages/i18n/compliance/${language}.js`)).then((module) => module.default);
  const [it, ...others] = await Promise.all(LANGUAGES.map(of));
  const gaps = (text) => [...text.matchAll(/\{\w+\}/g)].map(([gap]) => gap).sort();
  for (const other of others) {
    assert.deepEqual(Object.keys(other).sort(), Object.keys(it).sort());
    for (const [key, text] of Object.entries(it)) {
      assert.deepEqual(gaps(other[key]), gaps(text), key);
      assert.ok(other[key].trim() !== "", key);
    }
  }
  const { components } = JSON.parse(readFileSync(join(ROOT, "tests/openapi.json"), "utf8"));
  const kinds = { state: "RecordedState", outcome: "Outcome" };
  for (const [kind, schema] of Object.entries(kinds)) {
    for (const said of components.schemas[schema].enum ?? components.schemas[schema].oneOf.flatMap((one) => one.enum)) assert.ok(`${kind}.${said}` in it, `${kind}.${said}`);
  }
  const code = readFileSync(join(ROOT, "src/room/event.rs"), "utf8");
  const events = code.slice(code.indexOf("pub enum Event {"), code.indexOf("\n}", code.indexOf("pub enum Event {")));
  for (const [, name] of events.matchAll(/^ {4}([A-Z]\w+)/gm)) {
    const key = `event.${name.replaceAll(/(?!^)([A-Z])/g, "_$1").toLowerCase()}`;
    assert.ok(key in it, key);
  }
});
