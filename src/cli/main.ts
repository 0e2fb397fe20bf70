/**
 * The program `vhost-user` of the package for npm. It does not ask whether it is the main module: npm starts it by a link.
 *
 * @module
 */

import process from "node:process";
import { leave } from "./leave.ts";
import { main } from "./mod.ts";

await leave(await main(process.argv.slice(2)));
