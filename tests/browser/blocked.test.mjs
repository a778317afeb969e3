// A network that lets no UDP through: whoever is behind it reads what to do, and the operator sees that nothing arrives.

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
    await citizen.wait(booking.citizen);
    await operator.takeSeat(booking.room);
    await operator.page.locator("#operator-open").click();
    await operator.admit("citizen");
  });
  after(async () => {
    nowhere?.close();
    await counter?.close();
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
