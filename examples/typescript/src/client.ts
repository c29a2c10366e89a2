/**
 * A client of the Operator Data API over `fetch`. All it knows of the API are the generated types:
 * a path, parameter, body or answer that the document does not have is a compile error.
 */

import type { components, paths } from "./api.js";

export type ErrorCode = components["schemas"]["ErrorBody"]["code"];
type Method = "get" | "post" | "put" | "patch" | "delete";
type MethodOf<P extends keyof paths> = {
  [M in keyof paths[P] & Method]: paths[P][M] extends { responses: unknown } ? M : never;
}[keyof paths[P] & Method];

type Parameters<O> = O extends { parameters: infer Given } ? Given : never;
type Part<O, Name extends "path" | "query"> = Parameters<O> extends { [_ in Name]: infer T }
  ? { [_ in Name]: T }
  : Parameters<O> extends { [_ in Name]?: infer T }
    ? { [_ in Name]?: T }
    : unknown;
type Body<O> = O extends { requestBody: { content: { "application/json": infer T } } }
  ? { body: T }
  : unknown;
type Given<O> = Part<O, "path"> & Part<O, "query"> & Body<O>;

type Success = 200 | 201 | 202;
type Data<Answer> = Answer extends { content: { "application/json": { data: infer T } } }
  ? T
  : never;
type Answered<O> = O extends { responses: infer Answers }
  ? { [S in keyof Answers & Success]: Data<Answers[S]> }[keyof Answers & Success]
  : never;

const RETRY_STATUSES: ReadonlySet<number> = new Set([429, 503]);
const MAX_ATTEMPTS = 5;

/** The server refused a request: `code` is stable, `message` is for people. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly code: ErrorCode,
    message: string,
  ) {
    super(message);
  }
}

export class Client {
  constructor(
    private readonly url: string,
    private readonly apiKey: string,
  ) {}

  /** Send a request and return the `data` of its answer. Throws `ApiError`. */
  async call<P extends keyof paths & string, M extends MethodOf<P>>(
    method: M,
    path: P,
    given: Given<paths[P][M]>,
  ): Promise<Answered<paths[P][M]>> {
    const { path: segments, query, body } = given as {
      path?: Record<string, string>;
      query?: Record<string, string | number | boolean | undefined>;
      body?: unknown;
    };
    const filled = path.replace(/\{(\w+)\}/g, (_, name: string) =>
      encodeURIComponent(segments?.[name] ?? ""),
    );
    const address = new URL(filled, this.url);
    for (const [name, value] of Object.entries(query ?? {})) {
      if (value !== undefined) address.searchParams.set(name, String(value));
    }
    const headers: Record<string, string> = { Authorization: `Bearer ${this.apiKey}` };
    const init: RequestInit = { method: method.toUpperCase(), headers };
    if (body !== undefined) {
      headers["Content-Type"] = "application/json";
      // The same key for every attempt: whatever was lost on the way, nothing is done twice.
      headers["Idempotency-Key"] = crypto.randomUUID();
      init.body = JSON.stringify(body);
    }
    for (let attempt = 1; ; attempt++) {
      const response = await fetch(address, init);
      if (RETRY_STATUSES.has(response.status) && attempt < MAX_ATTEMPTS) {
        const seconds = Number(response.headers.get("Retry-After") ?? "1");
        await new Promise((done) => setTimeout(done, seconds * 1000));
        continue;
      }
      const envelope = (await response.json()) as
        | { success: true; data: Answered<paths[P][M]> }
        | components["schemas"]["ErrorEnvelope"];
      if (envelope.success) return envelope.data;
      const { code, message } = envelope.error;
      throw new ApiError(response.status, code, message);
    }
  }
}
