// An S3-compatible store that is not ours, which also checks signatures: s3rver of npm, in a process of its own.
//   deno run --allow-all tests/examples/s3_server.ts FOLDER PORT
import process from "node:process";
// @ts-types="./s3rver.d.ts"
import S3rver from "@20minutes/s3rver";

const [directory, port] = process.argv.slice(2);
const server = new S3rver({
  address: "127.0.0.1",
  port: Number(port),
  silent: true,
  directory,
  configureBuckets: [{ name: "disks" }],
});
const { port: listening } = await server.run();
console.log(`listening on ${listening}`);
