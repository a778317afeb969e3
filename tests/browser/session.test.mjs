// The session copy in Chromium's own player: a call in which one dropped and came back, from end to end and by jumps.
//
// SESSION_WEBM=<file> plays any other session copy; without it, a test of the recorder makes one.

import assert from "node:assert/strict";
import { createReadStream, existsSync, statSync } from "node:fs";
import { createServer } from "node:http";
import { once } from "node:events";
import { dirname, join } from "node:path";
import { after, before, describe, test } from "node:test";

import { container, decode, probe, run } from "./original.mjs";
import { launch } from "./people.mjs";
import { ROOT, artefacts } from "./server.mjs";

const MAKER = "recording::tests::session_copy::every_voice_is_heard_in_the_seconds_in_which_it_spoke_and_every_picture_stands_where_it_did";
/** Hertz, and the seconds in which each speaks, in the copy that the recorder's test makes. */
const SPOKEN = { 500: [[1, 4], [13, 15]], 800: [[3, 6], [13.5, 17]], 1300: [[5, 9], [14, 14.5]] };
const OWN = !process.env.SESSION_WEBM;

async function sessionCopy() {
  if (!OWN) return process.env.SESSION_WEBM;
  const folder = process.env.ARTEFACTS || dirname(artefacts("session"));
  const file = join(folder, "session", "session.webm");
  if (!existsSync(file)) {
    const { status, stdout, stderr } = await run("cargo", ["test", "--workspace", "--locked", "--lib", "--", "--exact", MAKER], {
      cwd: ROOT,
      env: { ...process.env, ARTEFACTS: folder },
    });
    assert.equal(status, 0, stdout + stderr);
  }
  return file;
}

/** Serves one file the way a web server does, with ranges: players jump by them. */
async function serve(file) {
  const size = statSync(file).size;
  const server = createServer((request, response) => {
    if (request.url !== "/session.webm") return response.writeHead(200, { "Content-Type": "text/html" }).end("<!doctype html><title>player</title>");
    const [, from, to] = request.headers.range?.match(/^bytes=(\d+)-(\d*)$/) ?? [];
    const start = Number(from ?? 0);
    const end = to ? Number(to) : size - 1;
    const head = { "Content-Type": "video/webm", "Accept-Ranges": "bytes", "Content-Length": end - start + 1 };
    if (from === undefined) response.writeHead(200, head);
    else response.writeHead(206, { ...head, "Content-Range": `bytes ${start}-${end}/${size}` });
    createReadStream(file, { start, end }).on("error", () => response.destroy()).pipe(response);
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  return server;
}

describe("the session copy", () => {
  let file, server, browser, page, seconds;

  before(async () => {
    file = await sessionCopy();
    const { spans } = await probe(file);
    seconds = Math.max(...spans.map((span) => span.end));
    server = await serve(file);
    browser = await launch();
    page = await browser.newPage();
    await page.goto(`http://127.0.0.1:${server.address().port}/`);
  });

  after(async () => {
    await browser?.close();
    server?.closeAllConnections();
    server?.close();
  });

  test("ffprobe, mkvmerge and a whole decoding say no word against it", async () => {
    const { status, complaints, spans } = await probe(file);
    assert.deepEqual([status, complaints], [0, ""]);
    assert.equal(spans[0].codec, "opus");
    assert.deepEqual(await decode(file), { status: 0, complaints: "" });
    assert.deepEqual(await container(file), { docType: "webm", supported: true, complaints: [] });
  });

  test("it plays from end to end, across the drop and the return", async () => {
    const played = await page.evaluate(play, { seconds, frequencies: Object.keys(SPOKEN).map(Number) });
    const what = JSON.stringify({ ...played, heard: undefined });
    assert.equal(played.error, null, what);
    assert.ok(played.ended, what);
    assert.ok(Math.abs(played.duration - seconds) < 0.1 && played.reached > seconds - 0.1, what);
    // Played at twice the speed on a machine that does other things too: most frames, and no standstill.
    assert.ok(played.frames > 5 * seconds && played.longestStandstill < 2_000, what);
    if (!OWN) return;
    for (const { time, levels } of played.heard) {
      for (const [hertz, spans] of Object.entries(SPOKEN)) {
        // A tenth of a second from here on was listened to.
        const inside = spans.some(([from, to]) => time >= from && time + 0.1 <= to);
        const outside = spans.every(([from, to]) => time + 0.15 <= from || time >= to + 0.05);
        if (inside) assert.ok(levels[hertz] > -18, `${hertz} Hz at ${time} s: ${levels[hertz]} dB`);
        if (outside) assert.ok(levels[hertz] < -45, `${hertz} Hz at ${time} s: ${levels[hertz]} dB`);
      }
    }
    assert.ok(played.heard.length > 40, `${played.heard.length} moments were listened to`);
  });

  test("ten jumps there and back end where they should, with a picture", async () => {
    // In no order, with the first and the last second among them.
    const places = [0.5, 0.93, 0.13, 0.78, 0.41, 0.02, 0.6, 0.29, 0.98, 0.67].map((part) => part * seconds);
    const jumps = await page.evaluate(jump, places);
    for (const { place, time, millis, size, error } of jumps) {
      const what = JSON.stringify({ place, time, millis, size, error });
      console.log(what);
      assert.equal(error, null, what);
      assert.ok(Math.abs(time - place) < 0.01 && millis < 3_000, what);
      assert.ok(size[0] > 0 && size[1] > 0, what);
    }
    assert.equal(jumps.length, 10);
    assert.equal(new Set(jumps.map((jump) => jump.picture)).size > 5, true, "the pictures differ");
  });
});

/** Runs in the page: plays everything at twice its speed, and listens. */
async function play({ seconds, frequencies }) {
  const video = document.body.appendChild(document.createElement("video"));
  video.src = "/session.webm";
  video.playbackRate = 2;
  // What is listened to is the browser's decoding of the whole sound: sped up, its tones would be blurred.
  const ears = new OfflineAudioContext(1, Math.ceil(seconds * 48_000), 48_000);
  const sound = await ears.decodeAudioData(await (await fetch("/session.webm")).arrayBuffer());
  const samples = sound.getChannelData(0);
  const heard = [];
  for (let time = 0.5; time < seconds - 0.5; time += 0.1) {
    const from = Math.round(time * sound.sampleRate);
    const window = samples.subarray(from, from + sound.sampleRate / 10);
    const levels = {};
    for (const hertz of frequencies) {
      const factor = 2 * Math.cos((2 * Math.PI * hertz) / sound.sampleRate);
      let [last, before] = [0, 0];
      for (const sample of window) [last, before] = [sample + factor * last - before, last];
      const power = (last * last + before * before - factor * last * before) / (window.length / 2) ** 2;
      levels[hertz] = 10 * Math.log10(power + 1e-12);
    }
    heard.push({ time, levels });
  }
  let [longestStandstill, movedAt, last] = [0, performance.now(), -1];
  const watching = setInterval(() => {
    if (video.currentTime !== last) [last, movedAt] = [video.currentTime, performance.now()];
    longestStandstill = Math.max(longestStandstill, performance.now() - movedAt);
  }, 50);
  const over = new Promise((resolve) => {
    video.onended = () => resolve(true);
    video.onerror = () => resolve(false);
    setTimeout(() => resolve(false), 1_000 * seconds + 20_000);
  });
  await video.play().catch(() => {});
  movedAt = performance.now();
  const ended = await over;
  clearInterval(watching);
  const result = {
    error: video.error?.message ?? null,
    ended,
    duration: video.duration,
    reached: video.currentTime,
    frames: video.getVideoPlaybackQuality().totalVideoFrames,
    longestStandstill,
    heard,
  };
  video.remove();
  return result;
}

/** Runs in the page: jumps to each place, and says where it came out, how fast, and what was seen. */
async function jump(places) {
  const video = document.body.appendChild(document.createElement("video"));
  video.src = "/session.webm";
  video.preload = "metadata";
  const told = (name) => new Promise((resolve) => {
    video.addEventListener(name, resolve, { once: true });
    video.addEventListener("error", resolve, { once: true });
    setTimeout(resolve, 10_000);
  });
  await told("loadedmetadata");
  const small = new OffscreenCanvas(16, 12).getContext("2d", { willReadFrequently: true });
  const jumps = [];
  for (const place of places) {
    const begin = performance.now();
    const arrived = told("seeked");
    video.currentTime = place;
    await arrived;
    small.drawImage(video, 0, 0, 16, 12);
    const picture = small.getImageData(0, 0, 16, 12).data.join();
    const size = [video.videoWidth, video.videoHeight];
    const millis = Math.round(performance.now() - begin);
    jumps.push({ place, time: video.currentTime, millis, size, picture, error: video.error?.message ?? null });
  }
  video.remove();
  return jumps;
}
