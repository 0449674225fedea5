-- A commit every ten seconds, so that what a backup holds is known to the second. Run by psql, until the server goes.
SET synchronous_commit = on;
SET client_min_messages = 'warning';
CREATE SCHEMA IF NOT EXISTS deploy;
CREATE TABLE IF NOT EXISTS deploy.heartbeat (one boolean PRIMARY KEY DEFAULT true CHECK (one), at timestamptz NOT NULL);
INSERT INTO deploy.heartbeat (at) VALUES (clock_timestamp()) ON CONFLICT (one) DO UPDATE SET at = excluded.at \watch i=10
