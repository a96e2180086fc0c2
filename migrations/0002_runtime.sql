-- Events, background tasks, lifecycle jobs, image pins (contract 2 §15, 3.17, 3.R100, 3.R127).

CREATE TABLE structure_events (
    id           uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    seq          bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    event_type   text NOT NULL,
    workspace_id uuid, -- no foreign key: the log outlives the workspace
    agent_id     uuid,
    target_id    uuid,
    payload      jsonb,
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX structure_events_time_idx ON structure_events (created_at DESC, seq DESC);
CREATE INDEX structure_events_workspace_idx ON structure_events (workspace_id, created_at DESC, seq DESC);

CREATE TABLE background_tasks (
    name             text PRIMARY KEY,
    holder           text,
    lease_until      timestamptz,
    interval_ms      bigint,
    last_tick_at     timestamptz,
    last_ok_at       timestamptz,
    last_duration_ms bigint,
    last_error       text,
    ticks            bigint NOT NULL DEFAULT 0,
    restarts         bigint NOT NULL DEFAULT 0
);

CREATE SEQUENCE workspace_job_tokens;

CREATE TABLE workspace_jobs (
    id           uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    workspace_id uuid NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
    kind         text NOT NULL
                 CHECK (kind IN ('provision', 'wake', 'restart', 'stop', 'provider_switch', 'teardown')),
    state        text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'running', 'failed', 'done')),
    reason       text NOT NULL,
    options      jsonb NOT NULL DEFAULT '{}',
    automatic    boolean NOT NULL DEFAULT false,
    attempts     integer NOT NULL DEFAULT 0,
    not_before   timestamptz NOT NULL DEFAULT now(),
    holder       text,
    lease_until  timestamptz,
    token        bigint,
    requested_at timestamptz NOT NULL DEFAULT now(),
    started_at   timestamptz,
    finished_at  timestamptz,
    last_error   text
);
CREATE UNIQUE INDEX workspace_jobs_one_running_uniq ON workspace_jobs (workspace_id) WHERE state = 'running';
CREATE UNIQUE INDEX workspace_jobs_one_pending_uniq ON workspace_jobs (workspace_id) WHERE state = 'pending';
CREATE INDEX workspace_jobs_due_idx ON workspace_jobs (not_before) WHERE state = 'pending';
CREATE INDEX workspace_jobs_lease_idx ON workspace_jobs (lease_until) WHERE state = 'running';
CREATE INDEX workspace_jobs_finished_idx ON workspace_jobs (finished_at) WHERE state IN ('failed', 'done');
CREATE INDEX workspace_jobs_workspace_idx ON workspace_jobs (workspace_id, requested_at);

CREATE TABLE notify_payloads (
    id         uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    payload    text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX notify_payloads_time_idx ON notify_payloads (created_at);

CREATE TABLE runtime_image_pins (
    template_name text PRIMARY KEY,
    digest        text NOT NULL CHECK (digest ~ '^sha256:[a-f0-9]{64}$'),
    updated_at    timestamptz NOT NULL DEFAULT now(),
    updated_by    text,
    notes         text
);
