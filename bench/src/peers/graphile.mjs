// Submits no-op jobs to graphile-worker in batches and runs them in this process, as fast as it can be set up to go:
// batched submission, a local queue, batched completion. Prints one line of JSON: {"jobs_per_second": n}.
// Called with: DATABASE_URL, number of jobs, a payload of so many bytes, and the folder it is installed in.
import { createRequire } from "node:module";
import { join } from "node:path";

const [url, countText, payloadText, folder] = process.argv.slice(2);
const require = createRequire(join(folder, "package.json"));
const { run, makeWorkerUtils, Logger } = require("graphile-worker");

const count = Number(countText);
const payload = { text: "x".repeat(Number(payloadText)) };
const batch = 1000;
const logger = new Logger(() => () => {});

const utils = await makeWorkerUtils({ connectionString: url, logger, maxPoolSize: 4 });
await utils.migrate();

let done = 0;
let finished;
const allDone = new Promise((resolve) => {
  finished = resolve;
});
const runner = await run({
  connectionString: url,
  concurrency: 48,
  maxPoolSize: 20,
  noHandleSignals: true,
  logger,
  preset: {
    worker: {
      localQueue: { size: 1000, refetchDelay: { durationMs: 1 } },
      completeJobBatchDelay: 1,
      failJobBatchDelay: 1,
    },
  },
  taskList: {
    noop: () => {
      done += 1;
      if (done === count) finished();
    },
  },
});

const start = process.hrtime.bigint();
for (let first = 0; first < count; first += batch) {
  const jobs = Array.from({ length: Math.min(batch, count - first) }, () => ({ identifier: "noop", payload }));
  await utils.addJobs(jobs);
}
await allDone;
await runner.stop();
const seconds = Number(process.hrtime.bigint() - start) / 1e9;
await utils.release();
console.log(JSON.stringify({ jobs_per_second: count / seconds }));
