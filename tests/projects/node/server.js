const http = require('node:http');
const { describe } = require('./lib/uptime');

const server = http.createServer((_request, response) => response.end(describe(90) + '\n'));
server.listen(process.argv.includes('--once') ? 0 : Number(process.env.PORT), '127.0.0.1', () => {
  if (!process.argv.includes('--once')) return;
  http.get({ port: server.address().port, host: '127.0.0.1' }, (answer) => {
    answer.pipe(process.stdout);
    answer.on('end', () => server.close());
  });
});
