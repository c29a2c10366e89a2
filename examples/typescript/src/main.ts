/** Sends a few players, events and states, says what was refused, and reads one player back. */

import { ApiError, Client } from "./client.js";

const { OPDATA_URL = "http://127.0.0.1:8080", OPDATA_API_KEY = "" } = process.env;
const client = new Client(OPDATA_URL, OPDATA_API_KEY);

await client.call("put", "/operator-data-api/settings", { body: { templateId: "tpl_igaming" } });

const players = await client.call("post", "/operator-data-api/batch/entities", {
  body: [
    {
      entityType: "player",
      externalId: "ts_001",
      data: { email: "alice@example.com", country: "GB", currency: "GBP", status: "active" },
    },
    // No e-mail: refused, and the player before it is stored all the same.
    {
      entityType: "player",
      externalId: "ts_002",
      data: { country: "MT", currency: "EUR", status: "active" },
    },
  ],
});
// A batch that was sent with `Prefer: respond-async` has a job to wait for instead of an outcome.
if (!("errors" in players)) throw new Error(`queued as ${players.jobId}`);
for (const error of players.errors) {
  console.log(`refused ${error.externalId} at ${error.index}: ${error.code} ${error.message}`);
}

const deposits = Array.from({ length: 5 }, (_, number) => ({
  externalId: "ts_001",
  eventType: "transaction" as const,
  occurredAt: `2026-04-06T12:0${number}:00Z`,
  idempotencyKey: `ts-deposit-${number}`,
  data: { type: "deposit", amount: 10 + number, currency: "GBP" },
}));
await client.call("post", "/operator-data-api/batch/events", { body: deposits });
await client.call("post", "/operator-data-api/batch/states", {
  body: [{ externalId: "ts_001", stateKey: "balance", value: { amount: 60, currency: "GBP" } }],
});

const player = await client.call("get", "/operator-data-api/entities/{externalId}", {
  path: { externalId: "ts_001" },
});
console.log(`${player.externalId} is a ${player.entityType}, e-mail ${player.data["email"]}`);

let cursor: string | null = null;
let events = 0;
do {
  const query: { limit: number; cursor?: string } = { limit: 2 };
  if (cursor !== null) query.cursor = cursor;
  const page = await client.call("get", "/operator-data-api/entities/{externalId}/events", {
    path: { externalId: "ts_001" },
    query,
  });
  events += page.items.length;
  cursor = page.nextCursor;
} while (cursor !== null);
console.log(`${events} events`);

try {
  await client.call("get", "/operator-data-api/entities/{externalId}", {
    path: { externalId: "ts_002" },
  });
} catch (error) {
  if (!(error instanceof ApiError) || error.code !== "NOT_FOUND") throw error;
  console.log(`ts_002: ${error.status} ${error.code}`);
}
