// The compliance console on calls that were really recorded, in which someone dropped and came back, one encrypted and one
// not: found by a fiscal code, opened with a reason, played with every camera in step, checked, held, kept, copied,
// destroyed, and every look written down.

import assert from "node:assert/strict";
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";

import { decode, probe, run } from "./original.mjs";
import { launch } from "./people.mjs";
import { LOADTEST, ROOT, Server, artefacts, until } from "./server.mjs";

/** As session.test.mjs makes one: a debug build, so the limits are not those of a machine that serves. */
const CALL = "call --rooms 1 --duration 18s --reconnect 6s --max-join 10s --max-first-media 10s --max-loss 1".split(" ");
const SHORT = "call --rooms 1 --duration 8s --reconnect 3s --max-join 10s --max-first-media 10s --max-loss 1".split(" ");
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
/** @type {string} the encrypted recording, and the plain one */
let room, plain;
let server, browser;

/** A server, and a call on it up to the sealed package; gives its room. */
async function record(call, encrypt) {
  const keys = server?.keys;
  await server?.stop();
  server = await Server.start({ data, log: join(folder, `server-${encrypt}.log`), env: { SPORTELLO__RECORDING__ENCRYPT: encrypt } });
  // They are printed once.
  if (keys) server.keys = keys;
  const packages = join(data, "packages");
  const sealed = () => (existsSync(packages) ? readdirSync(packages) : []).filter((name) => existsSync(join(packages, name, "manifest.jws")));
  const before = new Set(sealed());
  const called = await run(LOADTEST, [...call, "--url", server.url], { env: { ...process.env, SPORTELLO_BOOKING_KEY: server.keys.booking } });
  assert.equal(called.status, 0, called.stdout + called.stderr);
  const made = await until("the package is sealed", () => sealed().find((name) => !before.has(name)), 300_000);
  return made.replace("session-", "");
}

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

async function open(page, which = room) {
  await page.locator(`[data-room="${which}"] button`).click();
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
      await new Promise((resolve) => setTimeout(resolve, 15));
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

/** Moves to a place of the time line, in seconds. */
async function seek(page, place) {
  await page.locator("#player-seek").evaluate((seek, place) => {
    seek.step = "any";
    seek.value = String(place);
    seek.dispatchEvent(new Event("input", { bubbles: true }));
  }, place);
}

/** The lanes that play now. */
const running = (page) =>
  page.locator("[data-lane] video").evaluateAll((all) => all.filter((video) => !video.paused && !video.ended).map((video) => video.currentSrc));

/** Whether what was told by `spread` is within the bar, by so many looks at least. */
function inStep(told, looks) {
  assert.ok(told.looks >= looks && told.clocks <= IN_STEP_MS && told.frames <= IN_STEP_MS, JSON.stringify(told));
}

const playing = (page, count) =>
  page.waitForFunction((count) => [...document.querySelectorAll("[data-lane] video")].filter((video) => !video.paused && !video.seeking && video.readyState >= 3).length >= count, count, { timeout: 15_000 });

describe("the compliance console", () => {
  let page;
  /** @type {number} when the one who dropped is there again, seconds */
  let back;
  const answer = async (reason) => {
    await page.locator("#ask-text").fill(reason);
    await page.locator("#ask-yes").click();
    await page.locator("#ask-reason").waitFor({ state: "detached" });
  };

  before(async () => {
    plain = await record(SHORT, "false");
    room = await record(CALL, "true");
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
    assert.equal(await page.locator("[data-room]").count(), 2);
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
    const told = await spread(page, 5);
    console.log("while playing", JSON.stringify(told));
    inStep(told, 100);
    await playing(page, 3);
  });

  test("stays in step while someone comes back", async () => {
    await seek(page, 16);
    back = await page.locator('[data-lane][data-role="delegato"] video').evaluate((video) => Number(video.dataset.from));
    assert.ok(back > 6 && back < 15, `came back at ${back}`);
    for (let round = 0; round < 3; round += 1) {
      await seek(page, back - 2);
      const told = await spread(page, 4);
      console.log("through the return", JSON.stringify(told));
      inStep(told, 100);
      assert.equal((await running(page)).length, 3);
    }
  });

  test("keeps them in step after ten seeks, the nearest to someone's return", async () => {
    await play(page, true);
    const [, length] = await seconds(page);
    const places = [0.02 * length, back - 0.9, 0.3 * length, back - 0.4, back + 0.1, back - 0.05, 0.75 * length, back + 0.5, back - 0.2, back + 0.9];
    const worst = { clocks: 0, frames: 0 };
    for (const place of places) {
      await play(page, true);
      const began = Date.now();
      // It is looked from before the seek on: the start after it counts too.
      const [told] = await Promise.all([spread(page, 2.5), seek(page, place)]);
      const [now] = await seconds(page);
      console.log("after a seek", JSON.stringify({ place, now, ...told }));
      assert.ok(now >= place && now <= place + 1 + (Date.now() - began) / 1000, `${place}: ${now}`);
      inStep(told, 60);
      if (place > back - 1) await playing(page, 3);
      worst.clocks = Math.max(worst.clocks, told.clocks);
      worst.frames = Math.max(worst.frames, told.frames);
    }
    console.log("worst of ten seeks", JSON.stringify(worst));
    await play(page, true);
    await page.locator("#player-rate").selectOption("2");
    await seek(page, back - 2);
    const fast = await spread(page, 3);
    console.log("at twice the speed", JSON.stringify(fast));
    await page.locator("#player-rate").selectOption("1");
    // As much time for who looks: it is twice as much of the films.
    assert.ok(fast.clocks <= 2 * IN_STEP_MS, JSON.stringify(fast));
  });

  test("shows a gap where someone was away, and goes over it", async () => {
    const film = page.locator('[data-lane][data-role="delegato"]');
    await play(page, false);
    await seek(page, 7);
    await film.getByText("Nessuna ripresa").waitFor();
    await play(page, true);
    await film.getByText("Nessuna ripresa").waitFor({ state: "hidden", timeout: 20_000 });
    await playing(page, 3);
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
    await page.locator("#ask-sure").check();
    await page.locator("#ask-yes").click();
    await page.locator("#problem p").waitFor();
    assert.match(await page.locator("#problem").innerText(), /bloccata/);
    await page.locator("#problem button").click();
    await page.locator("#hold").click();
    await answer("Procedimento archiviato");
    await page.locator("#custody-hold", { hasText: "No" }).waitFor();
  });

  test("gives the package, plain and encrypted, and exports that play", async () => {
    const [download] = await Promise.all([page.waitForEvent("download"), page.locator("#download-package").click()]);
    const tar = join(folder, "package.tar");
    await download.saveAs(tar);
    const { stdout } = await run("tar", ["-tf", tar]);
    for (const name of ["manifest.json", "manifest.jws", "originals/", "ledger.jsonl"]) assert.ok(stdout.includes(name), stdout);
    // Without the key nothing can be seen in what is stored; in the plain package every original plays.
    const [stored] = await Promise.all([page.waitForEvent("download"), page.locator("#download-stored").click()]);
    for (const [path, plays] of [[tar, true], [await stored.path(), false]]) {
      const unpacked = mkdtempSync(join(tmpdir(), "package-"));
      await run("tar", ["-xf", path, "-C", unpacked]);
      const films = readdirSync(unpacked, { recursive: true }).filter((name) => /originals\/.*\.webm$/.test(name));
      assert.equal(films.length, 4);
      for (const film of films) assert.equal((await decode(join(unpacked, film))).status === 0, plays, film);
      rmSync(unpacked, { recursive: true });
    }
    rmSync(tar);
    const codecs = { mp4: ["h264", "aac"], webm: ["vp8", "opus"] };
    for (const [format, [picture, sound]] of Object.entries(codecs)) {
      await page.locator(`#export-${format}`).click();
      const link = page.locator(`#export-file[href*="exports"]`);
      await page.locator(`#export-${format}:enabled`).waitFor({ timeout: 300_000 });
      const [made] = await Promise.all([page.waitForEvent("download"), link.click()]);
      assert.ok(made.suggestedFilename().endsWith(`.${format}`), made.suggestedFilename());
      const file = join(folder, `export.${format}`);
      await made.saveAs(file);
      const { complaints, spans } = await probe(file);
      assert.equal(complaints, "");
      const [, length] = await seconds(page);
      for (const codec of [picture, sound]) {
        const span = spans.find((one) => one.codec === codec);
        assert.ok(span && span.end - span.begin > length - 1.5, `${format}: ${JSON.stringify(spans)} of ${length} s`);
      }
      assert.deepEqual(await decode(file), { status: 0, complaints: "" });
    }
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
        await page.locator("#sign-in").click();
        await page.locator("#key-missing").waitFor();
        await signIn(page, "sp_wrong");
        await page.locator("#problem p").waitFor();
        await shot("refused", { fullPage: true });
        await accessible(page, "a wrong key");
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
        await page.locator("#verify").click();
        await page.locator("[data-verified]").waitFor({ timeout: 60_000 });
        await page.locator("#export-mp4").click();
        await page.locator("#export-file").waitFor({ timeout: 300_000 });
        await shot("recording", { fullPage: true });
        await accessible(page, `${language} ${name}`);
        for (const question of ["hold", "retention", "destroy"]) {
          await page.locator(`#${question}`).click();
          await page.locator("#ask-yes").click();
          await page.locator("#ask-text-missing").waitFor();
          await shot(question);
          await accessible(page, `${question} ${language} ${name}`);
          await page.keyboard.press("Escape");
        }
        await fits(page, "a recording");
        await page.setViewportSize({ width: 320, height: 640 });
        await fits(page, "a recording on 320 px");
        await page.context().close();
      });
    }
  }

  for (const [kind, which] of [["a plain", () => plain], ["an encrypted", () => room]]) {
    test(`plays ${kind} recording and destroys it once its time is over`, async () => {
      page = await tab();
      await find(page);
      await open(page, which());
      await play(page, true);
      await playing(page, 2);
      const access = await page.locator("#download-manifest").getAttribute("href");
      await page.locator("#destroy").click();
      await page.locator("#ask-sure").check();
      await answer("Scarto autorizzato 2026/3");
      await page.locator("#problem p").waitFor();
      assert.match(await page.locator("#problem").innerText(), /non è scaduto, o non è stabilito/);
      assert.equal(await page.locator("#player-play").count(), 1);
      // Held, it outlives its date: so the node's own round does not come first.
      await page.locator("#hold").click();
      await answer("Fino allo scarto");
      await page.locator("#custody-hold", { hasText: "Fino allo scarto" }).waitFor();
      await page.locator("#retention").click();
      await page.locator("#retention-date").fill("2020-01-01");
      await answer("Massimario 2026, voce 12");
      await page.locator("#custody-until", { hasText: "1 gennaio 2020" }).waitFor();
      await page.locator("#hold").click();
      await answer("Scarto autorizzato 2026/3");
      await page.locator("#custody-hold", { hasText: "No" }).waitFor();
      await page.locator("#destroy").click();
      await page.locator("#ask-sure").check();
      await answer("Scarto autorizzato 2026/3");
      await page.locator("#no-film").waitFor();
      assert.match(await page.locator("#no-film").innerText(), /è stata distrutta/);
      await page.waitForFunction(() => document.activeElement?.id === "custody-heading");
      for (const gone of ["#player-play", "#verify", "#download-package", "#destroy", "#hold"]) assert.equal(await page.locator(gone).count(), 0, gone);
      await page.locator('#history [data-action="destroyed"]').waitFor();
      await page.locator("details", { hasText: "Nota firmata" }).locator("summary").click();
      const note = (await page.locator("details .hash", { hasText: /^eyJ/ }).innerText()).split(".");
      const said = JSON.parse(Buffer.from(note[1], "base64url").toString());
      assert.equal(said.room, which());
      await accessible(page, "a destroyed recording");
      await page.screenshot({ path: join(folder, `destroyed-${kind.split(" ")[1]}.png`), fullPage: true });
      // Every access ended with it, a new one has nothing to see, and on the disk there is nothing left.
      assert.equal((await server.send("GET", access)).status, 401);
      assert.deepEqual(readdirSync(data, { recursive: true }).filter((name) => name.includes(which())), []);
      await page.locator("#back").click();
      await find(page);
      assert.match(await page.locator(`[data-room="${which()}"]`).innerText(), /Distrutta/);
      await page.locator(`[data-room="${which()}"] button`).click();
      await page.locator("#ask-yes").click();
      await page.locator("#no-film").waitFor();
      await page.locator('#history [data-action="destroyed"]').waitFor();
      assert.equal(await page.locator("#problem p").count(), 0);
      const wrong = page.said.filter((line) => !line.includes("Failed to load resource"));
      assert.deepEqual(wrong, []);
      await page.context().close();
    });
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
