// Node's cluster: the first process has the socket, and two workers serve.
const cluster = require("cluster");
const http = require("http");

// Each worker accepts by itself. What the first process accepts for them is lost with the worker that it was meant for.
cluster.schedulingPolicy = cluster.SCHED_NONE;

if (cluster.isPrimary) {
  const workers = [cluster.fork(), cluster.fork()];
  process.on("SIGTERM", () => workers.forEach((worker) => worker.send("stop")));
  cluster.on("exit", () => Object.keys(cluster.workers).length || process.exit(0));
} else {
  let stopping = false;
  const server = http.createServer((request, response) => {
    const body = `${process.pid}\n`;
    const head = { "Content-Length": body.length };
    if (stopping) head.Connection = "close";
    response.writeHead(200, head).end(body);
  });
  process.on("SIGTERM", () => {});
  process.on("message", () => {
    stopping = true;
    server.close(() => process.exit(0));
  });
  server.listen({ fd: 3 });
}
