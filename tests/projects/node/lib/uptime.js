const ms = require('ms');

/** A duration in words. */
exports.describe = (seconds) => `up for ${ms(seconds * 1000, { long: true })}`;
