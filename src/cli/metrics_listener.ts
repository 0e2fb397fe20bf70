/**
 * Metrics over HTTP, for Prometheus.
 *
 * @module
 */

import { createServer, type Server } from "node:http";
import { isIP } from "node:net";
import { type Measured, prometheusContentType, prometheusText } from "../metrics/mod.ts";
import { UsageError } from "./command.ts";

/** Where to listen. */
type Address = { readonly path: string } | { readonly host: string; readonly port: number };

function addressOf(text: string): Address {
  if (text.startsWith("unix:")) {
    const path = text.slice("unix:".length);
    if (path !== "") return { path };
  } else {
    const match = /^(?:(?:\[([^\]]+)\]|([^:]+)):)?(\d{1,5})$/.exec(text);
    const host = match?.[1] ?? match?.[2] ?? "127.0.0.1";
    if (match !== null && Number(match[3]) <= 65535 && isIP(host) !== 0) {
      return { host, port: Number(match[3]) };
    }
  }
  throw new UsageError(
    `--metrics-listen must be [ADDRESS:]PORT with an IP address, or unix:PATH; got ${JSON.stringify(text)}`,
  );
}

/** Answers `GET /metrics`, and nothing else. */
export class MetricsListener {
  /** Where it listens, for people. */
  readonly url: string;
  readonly #server: Server;

  /**
   * Listens. Port 0 is one that is free; without an address only this machine is answered.
   *
   * @param text `[ADDRESS:]PORT` or `unix:PATH`
   * @throws {UsageError}
   */
  static async listen(text: string, servers: readonly Measured[]): Promise<MetricsListener> {
    const address = addressOf(text);
    const server = createServer((request, response) => {
      const [path] = (request.url ?? "").split("?");
      const get = request.method === "GET" || request.method === "HEAD";
      const status = !get ? 405 : path === "/metrics" ? 200 : 404;
      const type = status === 200 ? prometheusContentType : "text/plain; charset=utf-8";
      response.writeHead(status, { "content-type": type, ...get ? {} : { allow: "GET, HEAD" } });
      response.end(status === 200 ? prometheusText(servers) : "Metrics are at /metrics.\n");
    });
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      if ("path" in address) server.listen(address.path, resolve);
      else server.listen(address.port, address.host, resolve);
    });
    return new MetricsListener(server, address);
  }

  private constructor(server: Server, address: Address) {
    this.#server = server;
    const bound = server.address();
    const port = typeof bound === "object" && bound !== null ? bound.port : 0;
    this.url = "path" in address
      ? `unix:${address.path}`
      : `http://${isIP(address.host) === 6 ? `[${address.host}]` : address.host}:${port}/metrics`;
  }

  /** Ends it, and whoever is being answered. */
  close(): void {
    this.#server.close();
    this.#server.closeAllConnections();
  }
}
