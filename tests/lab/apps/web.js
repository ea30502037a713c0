// The program of the scenarios in Node: http on fd 3, and close() on SIGTERM. It tells nobody that it is ready.
const http = require("http");

const server = http.createServer((request, response) => {
  const body = `${process.pid}\n`;
  const head = { "Content-Length": body.length };
  if (stopping) head.Connection = "close";
  response.writeHead(200, head).end(body);
});
let stopping = false;
process.on("SIGTERM", () => {
  stopping = true;
  server.close(() => process.exit(0));
});
server.listen({ fd: 3 });
