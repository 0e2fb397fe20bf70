/** A front-end that writes to a disk until it is killed: `frontend_program.ts SOCKET JOURNAL ISSUED SEED SETTING` */

import { openSync } from "node:fs";
import process from "node:process";
import { Random } from "../support/random.ts";
import { Journal } from "./journal.ts";
import { Load } from "./load.ts";
import { drive, SECTORS } from "./setting.ts";

const [socket, file, issued, seed, setting] = process.argv.slice(2);
const disk = await drive(socket, JSON.parse(setting));
const journal = new Journal(SECTORS, openSync(file, "w"), Number(issued));
// What is on the disk already it does not know.
const load = new Load(disk, journal, new Random(Number(seed)), { reads: false });
await load.more(Infinity);
