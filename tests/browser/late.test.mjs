// Who opens the link when the appointment is over is told what their code is still good for.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import { Counter, papers } from "./meeting.mjs";
import { until } from "./server.mjs";

/** Time for two people to enter their codes. */
const APPOINTMENT_MS = 6_000;

describe("a link that is opened after the appointment", () => {
  let counter, visitor, ask;

  before(async () => {
    counter = await Counter.open("late");
    visitor = await counter.visitor("citizen", { phone: true });
    ask = (...request) => counter.server.ask(...request);
  });
  after(() => counter?.close());

  /** Books by the API, so that the end is near. */
  const book = async () => {
    const start = new Date();
    const end = new Date(start.getTime() + APPOINTMENT_MS);
    const people = [{ role: "operator", name: "Ofelia Quarantotti" }, { role: "citizen", name: "Dario Bevilacqua" }];
    const json = { profile: "videochiamata", office: "Roma", counter: "Pensioni", reason: "Informazioni", start, end, participants: people };
    const booked = await ask("POST", "/v1/rooms", { key: counter.server.keys.booking, json });
    const invitations = Object.fromEntries(booked.participants.map((one) => [one.role, one]));
    return { id: booked.room.id, end, ...invitations };
  };

  /** Admits by the code, over the API; gives the session's token. */
  const admit = async (invitation) => {
    const joinToken = new URL(invitation.join_url).pathname.split("/").at(-1);
    const session = await ask("POST", `/v1/join/${joinToken}`, { json: { code: invitation.code } });
    return session.session_token;
  };

  /** The operator opens the room and concludes it. */
  const conclude = async (room, extension_hours) => {
    const key = await admit(room.operator);
    const { consent_text_version } = await ask("GET", "/v1/session", { key });
    await ask("POST", "/v1/session/consent", { key, json: { text_version: consent_text_version } });
    await ask("POST", "/v1/session/enter", { key, json: { camera: true, microphone: true } });
    await ask("POST", `/v1/rooms/${room.id}/open`, { key });
    await ask("POST", `/v1/rooms/${room.id}/conclude`, { key, json: { outcome: "incomplete", extension_hours } });
  };

  const over = (room) => until("the appointment is over", () => Date.now() > room.end.getTime() + 200, 2 * APPOINTMENT_MS);

  test("while documents are missing: it tells until when, and the code leads to them", async () => {
    const { page } = visitor;
    const room = await book();
    await admit(room.citizen);
    await conclude(room, 72);
    await over(room);
    await page.goto(room.citizen.join_url);
    await page.locator('[data-admission="documents"]').getByText(/Puoi ancora consegnare i documenti mancanti fino a/).waitFor();
    assert.doesNotMatch(await page.locator("main").innerText(), /è passato|videocamera, microfono/);
    await visitor.look("documents", { languages: true, again: () => page.locator("#code-input").waitFor() });
    await page.locator("#code-input").fill(room.citizen.code);
    await page.locator("#code-submit").click();
    // Their session of the meeting still stands.
    await page.locator("#confirm-yes").click();
    await page.getByText("Questa pagina sarà disponibile altre 72 ore").waitFor();
    const { png } = await papers(counter.browser);
    await page.locator("#choose-files").setInputFiles([png]);
    await page.locator("#conforms").check();
    await page.locator("#send-files").click();
    await page.locator("#list-sent [data-document]", { hasText: png.name }).waitFor();
  });

  test("when the meeting is over: there is no code to enter, and a new appointment to book", async () => {
    const { page } = await counter.visitor("of-a-closed-room");
    const room = await book();
    await admit(room.citizen);
    await conclude(room, 0);
    await page.goto(room.citizen.join_url);
    await page.getByText("Questo appuntamento si è concluso.").waitFor();
    assert.ok(await page.locator("#code-input").isHidden());
    await visitor.page.goto(room.citizen.join_url);
    await visitor.look("over");
  });

  test("when nobody opened the room: the time to enter has passed, and the open page says so by itself", async () => {
    const { page } = visitor;
    const room = await book();
    await page.goto(room.citizen.join_url);
    await page.locator("#code-input").waitFor();
    assert.ok(await page.locator("[data-admission]").isHidden());
    await page.locator('[data-admission="too_late"]').getByText(/L’orario per entrare è passato/).waitFor({ timeout: 40_000 });
    await visitor.look("too-late");
  });
});
