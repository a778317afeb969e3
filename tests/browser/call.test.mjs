// One call of three browsers: who sees and hears whom, who must not, and what is on disk afterwards.

import assert from "node:assert/strict";
import { existsSync, createReadStream, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { cp } from "node:fs/promises";
import { createServer } from "node:http";
import { once } from "node:events";
import { basename, join } from "node:path";
import { after, before, describe, test } from "node:test";
import { setTimeout as pause } from "node:timers/promises";

import { colours, container, decode, probe, run, tones } from "./original.mjs";
import { FREQUENCIES, LOOKS, Person, dominant, heard, launch, makeMedia } from "./people.mjs";
import { BINARY, Server, artefacts, until } from "./server.mjs";

const ROLES = Object.keys(LOOKS);
/** Names that stand nowhere else, so that finding one is finding a leak. */
const NAMES = { operator: "Ofelia Quarantotti", delegato: "Dario Bevilacqua", delegante: "Zenobia Tagliaferri" };
const OTHER_NAMES = { operator: "Osvaldo Primaluce", delegato: "Nilde Fiordimonte", delegante: "Ulisse Malaspina" };
/** How long the call lasts after everyone is seen. */
const CALL_MS = 20_000;

const folder = artefacts("call");
let server, room, otherRoom;
/** @type {Record<string, Person>} */
const people = {};
const all = () => ROLES.map((role) => people[role]);
const othersOf = (person) => all().filter((other) => other !== person);
let seenAt;

// One suite around all: Node 18 runs hooks outside of any suite after the suites.
describe("a call of three", () => {
  before(async () => {
    server = await Server.start({ data: artefacts("call/data"), log: join(folder, "server.log") });
    room = await server.book(NAMES);
    otherRoom = await server.book(OTHER_NAMES, "Informazioni");
    await Promise.all(ROLES.map(async (role) => {
      people[role] = await Person.arrive(role, await makeMedia(folder, role));
    }));
  });

  after(async () => {
    for (const person of all().filter(Boolean)) {
      await person.screenshot(join(folder, `${person.role}.png`));
      writeFileSync(join(folder, `${person.role}.console.log`), person.console.join("\n"));
      await person.close();
    }
    await server?.stop();
  });

  describe("three browsers in one room", () => {
    test("nobody in the waiting room gets media, and the operator lets the others in", async () => {
      for (const person of all()) await person.enter(room.invitations[person.role]);
      for (const person of all()) assert.equal(await person.page.evaluate(() => window.sportello.pc), null, `${person.role} has a connection`);
      await people.operator.openRoom();
      await people.operator.admit(people.delegato);
      await people.operator.admit(people.delegante);
      await Promise.all(all().map((person) => person.sees(othersOf(person))));
      seenAt = Date.now();
    });

    test("everyone sees everyone's first frame within 2 s of the last POST", async () => {
      const timings = await Promise.all(all().map((person) => person.timings()));
      const lastPost = Math.max(...timings.map(({ post }) => post));
      all().forEach((person, at) => {
        for (const other of othersOf(person)) {
          const frame = timings[at].firstFrame[other.id];
          assert.ok(frame, `${person.role} noted no frame of ${other.role}`);
          console.log(`${person.role} saw ${other.role} ${Math.round(frame - lastPost)} ms after the last POST`);
          assert.ok(frame - lastPost <= 2_000, `${person.role} saw ${other.role} only after ${frame - lastPost} ms`);
        }
      });
    });

    test("everyone decodes both others' moving pictures at 15 frames a second or more and hears both others' tones", async () => {
      // One after the other: measuring costs time that the decoders need.
      for (const person of all()) {
        const views = await Promise.all(othersOf(person).map(async (other) => [other, await person.perceive(other, 3)]));
        for (const [other, { fps, colour, moved, tones: levels }] of views) {
          const what = `${person.role} of ${other.role}: ${fps.toFixed(1)} frames/s, colour ${colour.map(Math.round)}, tones ${JSON.stringify(levels)}`;
          console.log(what);
          assert.ok(fps >= 15, what);
          assert.equal(dominant(colour), LOOKS[other.role].colour, what);
          assert.ok(moved > 1, `the picture stands still: ${what}`);
          assert.deepEqual(heard(levels), [LOOKS[other.role].hertz], what);
        }
      }
    });
  });

  describe("strangers", () => {
    /** A page that keeps everything the server tells it. */
    async function eavesdrop(browser, use) {
      const page = await (await browser.newContext({ permissions: ["camera", "microphone"] })).newPage();
      const told = [];
      const bodies = [];
      page.on("response", (response) => bodies.push(response.text().then((text) => told.push(text), () => {})));
      page.on("websocket", (socket) => socket.on("framereceived", ({ payload }) => told.push(String(payload))));
      await use(page);
      await Promise.all(bodies);
      told.push(await page.content());
      const connected = await page.evaluate(() => window.sportello?.pc?.connectionState ?? null);
      await page.context().close();
      return { told: told.join("\n"), connected };
    }

    function assertNoNames(told, names) {
      for (const word of Object.values(names).flatMap((name) => name.split(" "))) {
        assert.ok(!told.includes(word), `a stranger was told «${word}»`);
      }
    }

    async function type(page, link, code) {
      await page.goto(link);
      await page.locator("#code-input").fill(code);
      await page.locator("#code-submit").click();
    }

    let browser;
    before(async () => {
      browser = await launch(await makeMedia(folder, "delegato"));
    });
    after(() => browser?.close());

    test("a wrong code opens nothing and tells no name", async () => {
      const { join_url: link, code } = room.invitations.delegato;
      const wrong = code === "000000" ? "000001" : "000000";
      const { told, connected } = await eavesdrop(browser, async (page) => {
        const answer = page.waitForResponse((response) => response.request().method() === "POST");
        await type(page, link, wrong);
        assert.equal((await answer).status(), 403);
        await page.locator("#code-input[aria-invalid=true]").waitFor();
      });
      assert.equal(connected, null);
      assertNoNames(told, NAMES);
    });

    test("a right code of another room opens nothing here and tells no name", async () => {
      const { join_url: link, code: right } = room.invitations.delegante;
      const { code } = otherRoom.invitations.delegante;
      if (code === right) return;
      const { told, connected } = await eavesdrop(browser, async (page) => {
        const answer = page.waitForResponse((response) => response.request().method() === "POST");
        await type(page, link, code);
        assert.equal((await answer).status(), 403);
      });
      assert.equal(connected, null);
      assertNoNames(told, NAMES);
      assertNoNames(told, OTHER_NAMES);
    });

    test("whoever waits for another room gets no media and learns nothing of this one", async () => {
      const { join_url: link, code } = otherRoom.invitations.delegato;
      const { told, connected } = await eavesdrop(browser, async (page) => {
        await type(page, link, code);
        await page.locator("#consent-accept").click();
        await page.locator("#enter-room:enabled").click();
        await page.locator("#waiting").waitFor();
        const token = await page.evaluate(() => Object.values(sessionStorage).find((value) => /^[\w-]{43}$/.test(value)));
        const offer = await page.evaluate(async () => {
          const pc = new RTCPeerConnection();
          pc.addTransceiver("video", { direction: "recvonly" });
          return (await pc.createOffer()).sdp;
        });
        const refused = await server.send("POST", "/v1/session/media", { key: token, sdp: offer });
        assert.equal(refused.status, 409);
        const refusedCommand = await server.send("GET", `/v1/rooms/${room.id}`, { key: token });
        assert.ok([401, 403, 404].includes(refusedCommand.status), `GET of the other room: ${refusedCommand.status}`);
      });
      assert.equal(connected, null);
      assertNoNames(told, NAMES);
    });

    test("without a session there is no media", async () => {
      for (const key of [undefined, "x".repeat(43)]) {
        const response = await server.send("POST", "/v1/session/media", { key, sdp: "v=0\r\n" });
        assert.equal(response.status, 401);
        assertNoNames(await response.text(), NAMES);
      }
    });
  });

  describe("the originals of the call", () => {
    let concludedAt, recordings, timings;
    const originals = () => ROLES.map((role) => [role, join(recordings, `${role}-1.webm`)]);

    before(async () => {
      await pause(Math.max(0, seenAt + CALL_MS - Date.now()));
      timings = Object.fromEntries(await Promise.all(all().map(async (person) => [person.role, await person.timings()])));
      const { page } = people.operator;
      await page.locator("#outcome-incomplete").check();
      concludedAt = Date.now();
      await page.locator("#conclude").click();
      for (const person of all()) await person.page.locator("#ended").waitFor();
      // Once they are sealed, the originals are in the package, as they were recorded.
      const recorded = join(folder, "data", "recordings", room.id);
      const signature = join(folder, "data", "packages", `session-${room.id}`, "manifest.jws");
      await until("the call is sealed", () => existsSync(signature) && !existsSync(recorded), 60_000);
      recordings = join(folder, "data", "packages", `session-${room.id}`, "originals");
    });

    test("there is one per person, and each passes ffprobe, mkvmerge and a whole decoding without a word", async () => {
      assert.deepEqual(readdirSync(recordings).filter((name) => name.endsWith(".webm")).sort(), ROLES.map((role) => `${role}-1.webm`).sort());
      for (const [role, file] of originals()) {
        const { status, complaints, spans } = await probe(file);
        assert.deepEqual([status, complaints], [0, ""], role);
        assert.deepEqual(spans.map((span) => span.codec).sort(), ["opus", "vp8"], role);
        assert.deepEqual(await decode(file), { status: 0, complaints: "" }, role);
        assert.deepEqual(await container(file), { docType: "webm", supported: true, complaints: [] }, role);
      }
    });

    test("each holds its own person's colour and tone, from the first second to the last", async () => {
      for (const [role, file] of originals()) {
        const { colour, hertz } = LOOKS[role];
        const seconds = await colours(file);
        assert.ok(seconds.length >= CALL_MS / 1000, `${role}: ${seconds.length} s of picture`);
        seconds.forEach((mean, second) => assert.equal(dominant(mean), colour, `${role}, second ${second}: ${mean}`));
        const { spans } = await probe(file);
        const video = spans.find((span) => span.codec === "vp8");
        assert.ok(video.packets / (video.end - video.begin) >= 15, `${role}: ${video.packets} frames in ${video.end - video.begin} s`);

        const sound = await tones(file, FREQUENCIES);
        assert.ok(sound.length >= CALL_MS / 1000, `${role}: ${sound.length} s of sound`);
        sound.forEach((levels, second) => {
          const others = FREQUENCIES.filter((other) => other !== hertz).map((other) => levels[other]);
          assert.ok(levels[hertz] > -50 && levels[hertz] > Math.max(...others) + 20, `${role}, second ${second}: ${JSON.stringify(levels)}`);
        });
      }
    });

    test("each lasts as long as its person was in the room, within 0.2 s", async () => {
      const ledger = await server.ledger(room.id);
      writeFileSync(join(folder, "ledger.json"), JSON.stringify(ledger, null, 1));
      const concluded = ledger.find(({ event }) => event.type === "concluded");
      for (const [role, file] of originals()) {
        const { id } = people[role];
        const starts = ledger.filter(({ event }) => event.type === "source_started" && event.participant === id);
        const first = Math.min(...starts.map(({ mono_ms: at, event }) => at - event.ago_ms));
        const inRoom = (concluded.mono_ms - first) / 1000;
        const { spans } = await probe(file);
        const recorded = Math.max(...spans.map((span) => span.end)) - Math.min(...spans.map((span) => span.begin));
        const byBrowser = (concludedAt - timings[role].connected) / 1000;
        const what = `${role}: recorded ${recorded.toFixed(3)} s, in the room ${inRoom.toFixed(3)} s, by the browser's clock ${byBrowser.toFixed(3)} s`;
        console.log(what);
        assert.ok(Math.abs(recorded - inRoom) <= 0.2, what);
        // The browser's clock knows the connection and the press of the button, not the first packet and the command.
        assert.ok(Math.abs(recorded - byBrowser) <= 1, what);
      }
    });

    test("each plays to its end in Chromium's own player", async () => {
      const files = createServer((request, response) => {
        const file = originals().find(([, path]) => request.url === `/${basename(path)}`);
        if (!file) return response.writeHead(200, { "Content-Type": "text/html" }).end("<!doctype html><title>player</title>");
        response.writeHead(200, { "Content-Type": "video/webm" });
        createReadStream(file[1]).pipe(response);
      }).listen(0, "127.0.0.1");
      await once(files, "listening");
      const browser = await launch();
      try {
        const page = await browser.newPage();
        await page.goto(`http://127.0.0.1:${files.address().port}/`);
        for (const [role, file] of originals()) {
          const played = await page.evaluate(play, { source: `/${basename(file)}`, frequencies: FREQUENCIES });
          const what = `${role}: ${JSON.stringify(played)}`;
          assert.equal(played.error, null, what);
          assert.ok(played.ended && played.reached >= CALL_MS / 1000, what);
          assert.ok(played.frames >= 15 * (CALL_MS / 1000) * 0.9, what);
          assert.equal(dominant(played.colour), LOOKS[role].colour, what);
          assert.deepEqual(heard(played.tones), [LOOKS[role].hertz], what);
        }
      } finally {
        await browser.close();
        files.close();
      }
    });

    test("verify passes the folder, and names the file and the cluster of a flipped byte", async () => {
      const whole = await run(BINARY, ["verify", recordings]);
      assert.equal(whole.status, 0, whole.stdout + whole.stderr);

      const copy = join(folder, "flipped");
      await cp(recordings, copy, { recursive: true, force: true });
      const file = join(copy, "delegato-1.webm");
      const bytes = readFileSync(file);
      bytes[Math.floor(bytes.length / 2)] ^= 1;
      writeFileSync(file, bytes);
      const flipped = await run(BINARY, ["verify", copy]);
      const said = flipped.stdout + flipped.stderr;
      assert.notEqual(flipped.status, 0, said);
      assert.match(said, /delegato-1\.webm.*cluster \d+/i);
      assert.doesNotMatch(said.split("\n").filter((line) => line.includes("cluster")).join("\n"), /operator-1|delegante-1/);
    });
  });
});

/** Runs in the page: plays a file for some seconds to see and hear it, then fast to its end. */
async function play({ source, frequencies }) {
  const video = document.body.appendChild(document.createElement("video"));
  video.src = source;
  const ears = new AudioContext();
  await ears.resume();
  const analyser = new AnalyserNode(ears, { fftSize: 4096, smoothingTimeConstant: 0 });
  ears.createMediaElementSource(video).connect(analyser).connect(ears.destination);
  const spectrum = new Float32Array(analyser.frequencyBinCount);
  const levels = Object.fromEntries(frequencies.map((hertz) => [hertz, -Infinity]));
  const small = new OffscreenCanvas(16, 12).getContext("2d", { willReadFrequently: true });
  let colour = null;
  const ended = new Promise((resolve) => {
    video.onended = () => resolve(true);
    video.onerror = () => resolve(false);
    setTimeout(() => resolve(false), 40_000);
  });
  await video.play().catch(() => {});
  const listening = setInterval(() => {
    if (video.currentTime < 0.5) return;
    if (video.currentTime > 3) {
      video.playbackRate = 4;
      return;
    }
    small.drawImage(video, 0, 0, 16, 12);
    const pixels = small.getImageData(0, 0, 16, 12).data;
    colour = [0, 0, 0];
    for (let at = 0; at < pixels.length; at += 4) for (let c = 0; c < 3; c += 1) colour[c] += pixels[at + c] / (pixels.length / 4);
    analyser.getFloatFrequencyData(spectrum);
    const bin = (hertz) => Math.round((hertz * analyser.fftSize) / ears.sampleRate);
    const floor = [...spectrum.slice(bin(200), bin(4000))].sort((a, b) => a - b)[Math.floor((bin(4000) - bin(200)) / 2)];
    for (const hertz of frequencies) {
      const peak = Math.max(...spectrum.slice(bin(hertz) - 1, bin(hertz) + 2));
      if (peak > -75) levels[hertz] = Math.max(levels[hertz], peak - Math.max(floor, -110));
    }
  }, 50);
  const reachedEnd = await ended;
  clearInterval(listening);
  const quality = video.getVideoPlaybackQuality();
  const result = {
    error: video.error?.message ?? null,
    ended: reachedEnd,
    reached: video.currentTime,
    frames: quality.totalVideoFrames,
    colour: colour ?? [0, 0, 0],
    tones: levels,
  };
  video.remove();
  await ears.close();
  return result;
}
