/** What the tests use of a package that has no types of its own. */
export default class S3rver {
  constructor(
    options: {
      address: string;
      port: number;
      silent: boolean;
      directory: string;
      configureBuckets: { name: string }[];
    },
  );
  run(): Promise<{ port: number }>;
}
