// Node's http2 and https, with one connection each. ADDRESS SECONDS
const http2 = require('http2'), https = require('https');
const [address, seconds] = process.argv.slice(2);
const end = Date.now() + seconds * 1000;

const session = http2.connect(`https://${address}`, { rejectUnauthorized: false });
session.on('error', error => console.error('session:', error.message));
const agent = new https.Agent({ keepAlive: true, maxSockets: 1, rejectUnauthorized: false });

const read = (stream, resolve, reject) => {
  let body = '';
  stream.setEncoding('utf8').on('data', some => (body += some)).on('end', () => resolve(body)).on('error', reject);
};
const two = () => new Promise((resolve, reject) =>
  read(session.request({ ':path': '/who', cookie: 'a=' + 'b'.repeat(300) }), resolve, reject));
const one = () => new Promise((resolve, reject) =>
  https.get(`https://${address}/who`, { agent }, answer => read(answer, resolve, reject)).on('error', reject));

async function run(name, ask, streams) {
  const pids = new Set(), ports = new Set();
  let answered = 0, failed = 0;
  const loop = async () => {
    while (Date.now() < end) {
      try {
        const [pid, port] = (await ask()).trim().split(' ');
        if (!port) throw new Error('no answer');
        pids.add(pid); ports.add(port); answered++;
      } catch (error) { failed++; console.error(`${name}: ${error.message}`); await new Promise(r => setTimeout(r, 50)); }
      await new Promise(resolve => setTimeout(resolve, 5));
    }
  };
  await Promise.all(Array.from({ length: streams }, loop));
  console.log(`${name}|${answered}|${failed}|${ports.size}|${pids.size}`);
}

Promise.all([run(`Node ${process.version}, http2`, two, 10), run(`Node ${process.version}, https`, one, 1)])
  .then(() => process.exit(0));
