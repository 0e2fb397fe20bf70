import { appendFile } from "node:fs/promises";
import { serve } from "@vhost/user";
import { Store } from "./store.ts";

const store = new Store((key, value) => appendFile("/tmp/store.jsonl", `${JSON.stringify([key, value])}\n`));
store.set("greeting", "hello from the host");

await serve(store.device, { socketPath: "/tmp/serve_store.sock" });
