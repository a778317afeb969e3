// A network that lets no UDP through: whoever is behind it reads what to do, and the operator sees that nothing arrives.

import assert from "node:assert/strict";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { after, before, describe, test } from "node:test";

import { Counter } from "./meeting.mjs";

describe("a network without UDP", () => {
  let counter, citizen, operator, nowhere;

  before(async () => {
    counter = await Counter.open("blocked");
    const desk = await counter.visitor("booking");
    await desk.page.goto(counter.server.url);
    const booking = await counter.book(desk.page, "videochiamata");
    citizen = await counter.visitor("citizen", { phone: true });
    operator = await counter.visitor("operator");
    nowhere = createSocket("udp4");
    nowhere.bind(0, "127.0.0.1");
    await once(nowhere, "listening");
    // What the firewall of an office does: the pages come through, media does not.
    await citizen.page.route("**/v1/session/media", async (route) => {
      const response = await route.fetch().catch(() => null);
      if (!response) return route.abort();
      const answer = (await response.text()).replace(/^(a=candidate:\S+ 1 udp \d+) \S+ \d+ typ/gim, `$1 127.0.0.1 ${nowhere.address().port} typ`);
      await route.fulfill({ response, body: answer });
    });
    await citizen.page.addInitScript((port) => {
      const { RTCPeerConnection } = window;
      window.RTCPeerConnection = class extends RTCPeerConnection {
        constructor(settings) {
          const iceServers = (settings.iceServers ?? []).map(() => ({ urls: `stun:127.0.0.1:${port}` }));
          super({ ...settings, iceServers });
        }
      };
    }, nowhere.address().port);
    await citizen.comeIn(booking.citizen);
    await operator.takeSeat(booking.room);
    await operator.page.locator("#operator-open").click();
  });
  after(async () => {
    nowhere?.close();
    await counter?.close();
  });

  test("the citizen reads it in the device check already, and may go in all the same", async () => {
    const { page } = citizen;
    // A question that nobody answers takes eight seconds.
    const told = () => page.locator("#network-trouble:visible").waitFor({ timeout: 20_000 });
    await told();
    await citizen.look("blocked-devices", { languages: true, again: told });
    await page.locator("#enter-room:enabled").click();
    await page.locator("#waiting").waitFor();
    await operator.admit("citizen");
  });

  test("nobody else is told so: the server answers", async () => {
    const answer = await operator.page.evaluate(async () => {
      const { letsUdpThrough } = await import("/assets/network.js");
      const began = performance.now();
      const passes = await letsUdpThrough(window.sportello.view.reflectors, new AbortController().signal);
      return { passes, servers: window.sportello.view.reflectors.length, took: performance.now() - began };
    });
    console.log(JSON.stringify(answer));
    assert.ok(answer.passes && answer.servers > 0 && answer.took < 5_000, JSON.stringify(answer));
  });

  test("the citizen reads in plain words what it may be and what to try", async () => {
    const words = citizen.page.locator("#link").getByText(/forse questa rete non lascia passare le videochiamate/);
    // One try that comes to nothing takes eight seconds.
    await words.waitFor({ timeout: 14_000 });
    await citizen.look("blocked", { languages: true, again: () => citizen.page.locator("#link:visible").waitFor({ timeout: 14_000 }) });
  });

  test("the operator sees that neither sound nor picture arrives", async () => {
    await operator.page.locator('[data-person][data-role="citizen"]').getByText("senza collegamento audio e video").waitFor();
    await operator.look("blocked-operator");
  });
});
