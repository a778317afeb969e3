// The people of a call: each a Chromium of its own, with a camera and a microphone that play files made here.

import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";

import { chromium } from "playwright-core";

const run = promisify(execFile);

/**
 * Who is told apart by what: the dominant channel of the picture, and the frequency of the beeps, in hertz. No
 * frequency is a multiple of another, so that a distorted voice is not taken for somebody else's.
 */
export const LOOKS = {
  operator: { colour: "red", paint: "0xd02020", hertz: 500 },
  delegato: { colour: "green", paint: "0x20b020", hertz: 900 },
  delegante: { colour: "blue", paint: "0x3030e0", hertz: 1400 },
};
export const FREQUENCIES = Object.values(LOOKS).map((look) => look.hertz);

/** Makes a role's camera and microphone files, once per folder. */
export async function makeMedia(folder, role) {
  const { paint, hertz } = LOOKS[role];
  const video = join(folder, `${role}.y4m`);
  const audio = join(folder, `${role}.wav`);
  if (!existsSync(video)) {
    // A white square walks over a coloured ground: one colour to find, and movement to see.
    await ffmpeg(
      "-f", "lavfi", "-i", `color=c=${paint}:s=320x240:r=20:d=4`,
      "-f", "lavfi", "-i", "color=c=white:s=48x48:r=20:d=4",
      "-filter_complex", "overlay=x='mod(n*8,272)':y='96+64*sin(n/6)',format=yuv420p", video,
    );
    // Beeps: a steady tone is noise to the browser's noise suppression, and it would take it away.
    await ffmpeg(
      "-f", "lavfi", "-i", `aevalsrc=exprs='0.5*sin(2*PI*${hertz}*t)*lt(mod(t,0.5),0.3)':s=48000:d=4`,
      "-c:a", "pcm_s16le", audio,
    );
  }
  return { video, audio };
}

async function ffmpeg(...args) {
  await run("ffmpeg", ["-v", "error", "-y", ...args]);
}

export function chromiumPath() {
  return process.env.CHROMIUM || "/usr/bin/chromium";
}

/** Starts a browser; with `media`, its devices play these files. */
export async function launch(media, { cameras = 1 } = {}) {
  const args = [
    "--use-fake-ui-for-media-stream",
    cameras > 1 ? `--use-fake-device-for-media-stream=device-count=${cameras}` : "--use-fake-device-for-media-stream",
    // Sound must be measured without a person who touches the page first.
    "--autoplay-policy=no-user-gesture-required",
    // Pages in the background are throttled, and here none is in front.
    "--disable-background-timer-throttling",
    "--disable-renderer-backgrounding",
    "--disable-backgrounding-occluded-windows",
  ];
  if (media) args.push(`--use-file-for-fake-video-capture=${media.video}`, `--use-file-for-fake-audio-capture=${media.audio}`);
  return chromium.launch({ executablePath: chromiumPath(), headless: true, chromiumSandbox: false, args });
}

/** One person at their browser. */
export class Person {
  static async arrive(role, media) {
    const browser = await launch(media);
    const context = await browser.newContext({ locale: "it-IT", permissions: ["camera", "microphone"] });
    const page = await context.newPage();
    const person = new Person(role, browser, page);
    page.on("console", (message) => person.console.push(`${message.type()}: ${message.text()}`));
    page.on("pageerror", (error) => person.console.push(`pageerror: ${error.message}`));
    return person;
  }

  constructor(role, browser, page) {
    this.role = role;
    this.browser = browser;
    this.page = page;
    this.id = null;
    /** What the page said on its console, kept for the artefacts. */
    this.console = [];
  }

  /** From the link to the waiting room; the operator gets to the room's door. */
  async enter(invitation) {
    this.id = invitation.id;
    await this.page.goto(invitation.join_url);
    await this.page.locator("#code-input").fill(invitation.code);
    await this.page.locator("#code-submit").click();
    await this.page.locator("#consent-accept").click();
    await this.page.locator("#preview").waitFor();
    await this.page.locator("#enter-room:enabled").click();
    await this.page.locator(this.role === "operator" ? "#operator-open" : "#waiting").waitFor();
  }

  async openRoom() {
    await this.page.locator("#operator-open").click();
  }

  async admit(other) {
    await this.page.locator(`[data-admit="${other.id}"]`).click();
    await other.page.locator("#room").waitFor();
  }

  /** Moments of the media handshake, milliseconds of this page's clock since 1970. */
  async timings() {
    return this.page.evaluate(() => {
      const { post, answer, connected, firstFrame } = window.sportello.timings;
      const wall = (moment) => (moment === null || moment === undefined ? null : performance.timeOrigin + moment);
      const frames = Object.entries(firstFrame).map(([id, moment]) => [id, wall(moment)]);
      return { post: wall(post), answer: wall(answer), connected: wall(connected), firstFrame: Object.fromEntries(frames) };
    });
  }

  /** Waits until every one of `others` is seen here, by frames that were decoded. */
  async sees(others, timeout = 10_000) {
    const ids = others.map((other) => other.id);
    await this.page.waitForFunction(
      (wanted) => wanted.every((id) => {
        const video = document.querySelector(`[data-participant="${id}"] video`);
        return video && video.getVideoPlaybackQuality().totalVideoFrames > 0;
      }),
      ids,
      { timeout },
    );
  }

  /**
   * Looks at and listens to one other person for `seconds`: decoded frames per second, the mean colour of the picture,
   * how much it moved, and how far each frequency stands out of the sound's floor, in decibels.
   */
  async perceive(other, seconds) {
    return this.page.evaluate(
      async ({ id, seconds, frequencies }) => {
        const tile = document.querySelector(`[data-participant="${id}"]`);
        const video = tile.querySelector("video");
        const sound = tile.querySelector("audio").srcObject;
        const canvas = new OffscreenCanvas(16, 12);
        const pen = canvas.getContext("2d", { willReadFrequently: true });
        const picture = () => {
          pen.drawImage(video, 0, 0, 16, 12);
          return pen.getImageData(0, 0, 16, 12).data;
        };
        const ears = new AudioContext();
        await ears.resume();
        const analyser = new AnalyserNode(ears, { fftSize: 4096, smoothingTimeConstant: 0 });
        ears.createMediaStreamSource(sound).connect(analyser);
        const spectrum = new Float32Array(analyser.frequencyBinCount);
        const binOf = (hertz) => Math.round((hertz * analyser.fftSize) / ears.sampleRate);
        const loudest = Object.fromEntries(frequencies.map((hertz) => [hertz, -Infinity]));

        const colour = [0, 0, 0];
        let looks = 0;
        let moved = 0;
        let before = null;
        const began = performance.now();
        const framesBefore = video.getVideoPlaybackQuality().totalVideoFrames;
        while (performance.now() - began < seconds * 1000) {
          const pixels = picture();
          for (let at = 0; at < pixels.length; at += 4) for (let c = 0; c < 3; c += 1) colour[c] += pixels[at + c] / (pixels.length / 4);
          if (before) for (let at = 0; at < pixels.length; at += 1) moved += Math.abs(pixels[at] - before[at]) > 40 ? 1 : 0;
          before = pixels;
          looks += 1;
          analyser.getFloatFrequencyData(spectrum);
          const floor = [...spectrum.slice(binOf(200), binOf(4000))].sort((a, b) => a - b)[Math.floor((binOf(4000) - binOf(200)) / 2)];
          for (const hertz of frequencies) {
            const peak = Math.max(...spectrum.slice(binOf(hertz) - 1, binOf(hertz) + 2));
            if (peak > -75) loudest[hertz] = Math.max(loudest[hertz], peak - Math.max(floor, -110));
          }
          await new Promise((resolve) => setTimeout(resolve, 50));
        }
        const elapsed = (performance.now() - began) / 1000;
        const frames = video.getVideoPlaybackQuality().totalVideoFrames - framesBefore;
        await ears.close();
        return { fps: frames / elapsed, colour: colour.map((sum) => sum / looks), moved: moved / looks, tones: loudest };
      },
      { id: other.id, seconds, frequencies: FREQUENCIES },
    );
  }

  /** Packets of media that came in on each kind of stream, by getStats. */
  async received() {
    return this.page.evaluate(async () => {
      const totals = { audio: 0, video: 0, framesDecoded: 0 };
      for (const stat of (await window.sportello.pc?.getStats())?.values() ?? []) {
        if (stat.type !== "inbound-rtp") continue;
        totals[stat.kind] += stat.packetsReceived;
        totals.framesDecoded += stat.framesDecoded ?? 0;
      }
      return totals;
    });
  }

  async screenshot(path) {
    await this.page.screenshot({ path, fullPage: true }).catch(() => {});
  }

  async close() {
    await this.browser.close();
  }
}

/** The channel that leads, or "none" if no one does by a clear margin. */
export function dominant([red, green, blue]) {
  const ranked = Object.entries({ red, green, blue }).sort((a, b) => b[1] - a[1]);
  return ranked[0][1] > 1.6 * ranked[1][1] ? ranked[0][0] : "none";
}

/**
 * The frequencies that stand out of the floor by at least `decibels`. A tone does by 90 and more; the clicks at the
 * ends of somebody else's beeps reach 25.
 */
export function heard(tones, decibels = 50) {
  return Object.entries(tones).filter(([, level]) => level >= decibels).map(([hertz]) => Number(hertz));
}
