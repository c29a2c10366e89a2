/** What must not compile: each line below holds one mistake, and a check fails when it passes. */

import type { Client } from "./client.js";

export async function mistakes(client: Client): Promise<void> {
  // @ts-expect-error there is no such path
  await client.call("post", "/operator-data-api/batch/players", { body: [] });
  // @ts-expect-error a batch is not deleted
  await client.call("delete", "/operator-data-api/batch/entities", {});
  // @ts-expect-error a batch needs a body
  await client.call("post", "/operator-data-api/batch/entities", {});
  await client.call("post", "/operator-data-api/batch/entities", {
    // @ts-expect-error ids are text
    body: [{ entityType: "player", externalId: 7, data: {} }],
  });
  await client.call("post", "/operator-data-api/batch/states", {
    // @ts-expect-error a state has a value
    body: [{ externalId: "ts_001", stateKey: "balance" }],
  });
  // @ts-expect-error the path names an entity
  await client.call("get", "/operator-data-api/entities/{externalId}", {});
  // @ts-expect-error the parameter is called limit
  await client.call("get", "/operator-data-api/entities", { query: { size: 10 } });
  const settings = await client.call("get", "/operator-data-api/settings", {});
  // @ts-expect-error an operator may have no template yet
  settings.template.id.length;
}
