/**
 * Conformance of vhost-user back-ends: cases, and a run over them.
 *
 * @module
 */

export * from "./case.ts";
export * from "./finding.ts";
export { allCases, type Group, groups } from "./cases/mod.ts";
export * from "./report.ts";
export * from "./run.ts";
export { RunningTarget, SpawnedTarget, type Target, TargetError } from "./target.ts";
