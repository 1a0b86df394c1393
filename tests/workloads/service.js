// A node service with state: a counter, a timer, a large buffer with a checksum.
const http = require('http');
const crypto = require('crypto');
const data = Buffer.alloc(64 << 20);
for (let i = 0; i < data.length; i += 4096) data.writeUInt32LE(i * 2654435761 >>> 0, i);
let requests = 0, ticks = 0;
setInterval(() => ticks++, 10);
http.createServer((req, res) => {
  requests++;
  if (req.url === '/sum') res.end(crypto.createHash('sha256').update(data).digest('hex'));
  else if (req.url === '/ticks') res.end(String(ticks));
  else res.end(String(requests));
}).listen(Number(process.argv[2]), '127.0.0.1', () => console.log('ready'));
