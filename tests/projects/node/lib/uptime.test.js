const assert = require('node:assert');
const test = require('node:test');
const { describe } = require('./uptime');

test('hours', () => assert.strictEqual(describe(7200), 'up for 2 hours'));
