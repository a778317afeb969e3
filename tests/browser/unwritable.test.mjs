// Nothing is transmitted that is not recorded: a call on a node whose recordings folder cannot be written.

import assert from "node:assert/strict";
import { chmodSync, chownSync, copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { setTimeout as pause } from "node:timers/promises";

import { LOOKS, Person, makeMedia } from "./people.mjs";
import { BINARY, Server, artefacts } from "./server.mjs";

const ROLES = Object.keys(LOOKS);
const NAMES = { operator: "Ofelia Quarantotti", delegato: "Dario Bevilacqua", delegante: "Zenobia Tagliaferri" };
/** `nobody`: root could write into any folder, so the server must not be root here. */
const NOBODY = { uid: 65_534, gid: 65_534 };

const folder = artefacts("unwritable");
const home = mkdtempSync(join(tmpdir(), "sportello-"));
let server, room;
/** @type {Record<string, Person>} */
const people = {};
const all = () => ROLES.map((role) => people[role]);

describe("a call on a node whose recordings folder cannot be written", () => {
  before(async () => {
    const data = join(home, "data");
    const recordings = join(data, "recordings");
    // The build's own folder may be closed to `nobody`.
    const binary = join(home, "sportello");
    mkdirSync(recordings, { recursive: true });
    copyFileSync(BINARY, binary);
    chmodSync(home, 0o755);
    chmodSync(binary, 0o755);
    const root = process.getuid() === 0;
    if (root) for (const path of [data, recordings]) chownSync(path, NOBODY.uid, NOBODY.gid);
    server = await Server.start({ data, log: join(folder, "server.log"), binary, as: root ? NOBODY : {} });

    // The server is up and well; then the folder closes, before the call.
    if (root) chownSync(recordings, 0, 0);
    chmodSync(recordings, 0o555);

    room = await server.book(NAMES);
    await Promise.all(ROLES.map(async (role) => {
      people[role] = await Person.arrive(role, await makeMedia(folder, role));
    }));
    for (const person of all()) await person.enter(room.invitations[person.role]);
    await people.operator.openRoom();
    await people.operator.admit(people.delegato);
    await people.operator.admit(people.delegante);
  });

  after(async () => {
    for (const person of all().filter(Boolean)) {
      await person.screenshot(join(folder, `${person.role}.png`));
      writeFileSync(join(folder, `${person.role}.console.log`), person.console.join("\n"));
      await person.close();
    }
    await server?.stop();
    rmSync(home, { recursive: true, force: true });
  });

  test("everyone in the room reads that it cannot be recorded, and why", async () => {
    for (const person of all()) {
      const fault = person.page.locator("#recording-fault:visible");
      await fault.waitFor();
      assert.equal(await fault.getAttribute("data-fault"), "not_writable");
      assert.ok((await fault.innerText()).length > 20, await fault.innerText());
    }
  });

  test("no media leaves the server, though everyone sends", async () => {
    // Longer than a whole call needs to start.
    await pause(5_000);
    for (const person of all()) {
      assert.deepEqual(await person.received(), { audio: 0, video: 0, framesDecoded: 0 }, person.role);
      assert.equal(await person.page.locator("#room").getAttribute("data-flow"), "false");
    }
    const samples = Object.entries(await server.metrics());
    const sum = (name) => samples.filter(([key]) => key.startsWith(name)).reduce((total, [, value]) => total + value, 0);
    assert.equal(sum("sportello_packets_forwarded_total"), 0);
  });

  test("the server lives and says so", async () => {
    assert.ok(server.alive);
    assert.equal((await server.send("GET", "/healthz")).status, 200);
    const view = await server.room(room.id);
    assert.equal(view.recording, "lost");
  });
});
