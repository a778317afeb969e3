// A reload, a network that is cut for five seconds, another camera: each leads back to a running call in under 3 s.

import assert from "node:assert/strict";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { after, before, describe, test } from "node:test";
import { setTimeout as pause } from "node:timers/promises";

import { Counter } from "./meeting.mjs";

const LONGEST_MS = 3_000;
const CUT_MS = 5_000;

/** Carries one person's media to the server and back, until it is cut. */
class Wire {
  static async to(port) {
    const near = createSocket("udp4");
    near.bind(0, "127.0.0.1");
    await once(near, "listening");
    return new Wire(near, port);
  }

  constructor(near, port) {
    this.near = near;
    this.cut = false;
    /** A socket for each of the browser's, so that the server tells them apart. */
    this.far = new Map();
    near.on("message", (packet, from) => {
      if (this.cut) return;
      let far = this.far.get(from.port);
      if (!far) {
        far = createSocket("udp4");
        far.on("message", (answer) => this.cut || near.send(answer, from.port, from.address));
        this.far.set(from.port, far);
      }
      far.send(packet, port, "127.0.0.1");
    });
  }

  get port() {
    return this.near.address().port;
  }

  close() {
    this.near.close();
    for (const socket of this.far.values()) socket.close();
  }
}

/** Has all of a page's media go over a wire: the server's address in its answers is the wire's. */
async function wire(page) {
  let found;
  await page.route("**/v1/session/media", async (route) => {
    const response = await route.fetch().catch(() => null);
    if (!response) return route.abort();
    const answer = await response.text();
    const line = answer.match(/^a=candidate:\S+ 1 udp \d+ (\S+) (\d+) typ host.*$/im);
    if (!line) return route.fulfill({ response, body: answer });
    found ??= await Wire.to(Number(line[2]));
    const others = answer.split("\r\n").filter((text) => !text.startsWith("a=candidate:") || text === line[0]);
    const body = others.join("\r\n").replace(`${line[1]} ${line[2]} typ`, `127.0.0.1 ${found.port} typ`);
    await route.fulfill({ response, body });
  });
  return { get cut() { return found.cut; }, set cut(value) { found.cut = value; }, close: () => found?.close() };
}

/** How long until the call runs here: the server sees us, and the other's picture moves again. */
async function untilRunning(page) {
  const began = Date.now();
  await page.waitForFunction(
    () => {
      const { pc, view } = window.sportello ?? {};
      const me = view?.participants.find((person) => person.id === view.me.id);
      const video = document.querySelector("[data-participant]:not([data-self]) video");
      if (!view?.flow || !me?.connected || pc?.connectionState !== "connected" || !video) return false;
      const frames = video.getVideoPlaybackQuality().totalVideoFrames;
      const before = window.framesBefore;
      window.framesBefore = { frames, pc };
      return before !== undefined && before.pc === pc && frames > before.frames;
    },
    null,
    { polling: 50, timeout: 15_000 },
  );
  return Date.now() - began;
}

describe("a call that is disturbed", () => {
  let counter, citizen, operator, cable;
  const took = {};

  before(async () => {
    counter = await Counter.open("reconnect", { cameras: 3 });
    const desk = await counter.visitor("booking");
    await desk.page.goto(counter.server.url);
    const booking = await counter.book(desk.page, "videochiamata");
    citizen = await counter.visitor("citizen");
    operator = await counter.visitor("operator");
    cable = await wire(citizen.page);
    await citizen.wait(booking.citizen);
    await operator.comeIn(booking.operator);
    await operator.page.locator("#enter-room").click();
    await operator.page.locator("#operator-open").click();
    await operator.admit("citizen");
    await untilRunning(citizen.page);
    await untilRunning(operator.page);
  });

  after(async () => {
    console.log(JSON.stringify(took));
    cable?.close();
    await counter?.close();
  });

  /** What the citizen waited for, and that no new code was asked for. */
  const runs = async (what) => {
    took[what] = await untilRunning(citizen.page);
    console.log(`${what}: running again after ${took[what]} ms`);
    assert.ok(took[what] < LONGEST_MS, `${what}: ${took[what]} ms`);
    assert.equal(await citizen.page.evaluate(() => document.body.dataset.step), "room");
    await untilRunning(operator.page);
  };

  test("runs again after a reload", async () => {
    await citizen.page.reload({ waitUntil: "commit" });
    await runs("reload");
  });

  test("runs again after a cut of five seconds, and tells of it meanwhile", async () => {
    const { page } = citizen;
    await page.evaluate(() => delete window.framesBefore);
    await page.context().setOffline(true);
    cable.cut = true;
    await page.locator("#link[data-state]:visible").waitFor();
    await pause(CUT_MS);
    cable.cut = false;
    await page.context().setOffline(false);
    await runs("cut");
    await page.locator("#link").waitFor({ state: "hidden" });
  });

  test("runs on with another camera", async () => {
    const { page } = citizen;
    await page.locator("#settings").click();
    const cameras = page.locator("#choose-camera");
    await page.waitForFunction(() => document.querySelectorAll("#choose-camera option").length > 1);
    const other = await cameras.locator("option").last().getAttribute("value");
    assert.notEqual(await cameras.inputValue(), other);
    const frames = () => operator.page.evaluate(() => document.querySelector("[data-participant]:not([data-self]) video").getVideoPlaybackQuality().totalVideoFrames);
    const began = Date.now();
    await cameras.selectOption(other);
    await page.waitForFunction((id) => window.sportello.pc.getSenders().some((sender) => sender.track?.kind === "video" && sender.track.getSettings().deviceId === id), other);
    const before = await frames();
    await operator.page.waitForFunction((count) => document.querySelector("[data-participant]:not([data-self]) video").getVideoPlaybackQuality().totalVideoFrames > count + 2, before, { polling: 50 });
    took.camera = Date.now() - began;
    console.log(`camera: the operator sees the other camera's picture after ${took.camera} ms`);
    assert.ok(took.camera < LONGEST_MS, `${took.camera} ms`);
    await page.locator("dialog").getByRole("button", { name: "Chiudi" }).click();
    await runs("camera, the citizen's view");
  });
});
