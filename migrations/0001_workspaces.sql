-- The workspace resource (contract 1 §17).

CREATE TYPE workspace_status AS ENUM (
    'provisioning', 'awaiting_agent', 'online', 'degraded', 'offline',
    'failed', 'paused', 'hibernating', 'hibernated', 'removed'
);

-- Runtimes whose agent its operator runs. The same list stands in mws_models::EXTERNAL_LIKE_RUNTIMES; a test
-- compares the two.
CREATE FUNCTION is_external_like(runtime text) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$ SELECT runtime IN ('external', 'kimi', 'kimi-cli') $$;

CREATE TABLE workspaces (
    id                       uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    name                     text NOT NULL,
    role                     text,
    tier                     integer NOT NULL DEFAULT 3,
    status                   workspace_status NOT NULL DEFAULT 'provisioning',
    runtime                  text NOT NULL DEFAULT 'claude-code',
    agent_card               jsonb,
    runtime_metadata         jsonb,
    url                      text,
    url_provisioned          boolean NOT NULL DEFAULT false,
    parent_id                uuid REFERENCES workspaces (id),
    forwarded_to             uuid REFERENCES workspaces (id),
    source_bundle_id         text,
    workspace_dir            text,
    workspace_access         varchar(20) NOT NULL DEFAULT 'none'
                             CHECK (workspace_access IN ('none', 'read_only', 'read_write')),
    delivery_mode            text CHECK (delivery_mode IN ('push', 'poll')),
    compute                  jsonb NOT NULL DEFAULT '{}',
    instance_id              text,
    runtime_image_digest     text,
    provision_generation     bigint NOT NULL DEFAULT 0,
    platform_inbound_secret  text,
    budget_limit             bigint CHECK (budget_limit >= 0),
    monthly_spend            bigint NOT NULL DEFAULT 0,
    spend_month              date,
    max_concurrent_tasks     integer NOT NULL DEFAULT 1,
    hibernation_idle_minutes integer CHECK (hibernation_idle_minutes >= 0),
    idle_since               timestamptz,
    broadcast_enabled        boolean NOT NULL DEFAULT false,
    talk_to_user_enabled     boolean NOT NULL DEFAULT true,
    last_heartbeat_at        timestamptz,
    last_error_rate          double precision NOT NULL DEFAULT 0,
    degraded_reason          text,
    last_sample_error        text,
    active_tasks             integer NOT NULL DEFAULT 0,
    uptime_seconds           integer NOT NULL DEFAULT 0,
    current_task             text,
    last_outbound_at         timestamptz,
    teardown_pending         boolean NOT NULL DEFAULT false,
    created_at               timestamptz NOT NULL DEFAULT now(),
    updated_at               timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX workspaces_parent_idx ON workspaces (parent_id);
CREATE INDEX workspaces_status_idx ON workspaces (status);
CREATE UNIQUE INDEX workspaces_parent_name_uniq
    ON workspaces (COALESCE(parent_id, '00000000-0000-0000-0000-000000000000'::uuid), name)
    WHERE status <> 'removed';
CREATE INDEX workspaces_runtime_heartbeat_idx ON workspaces (runtime, last_heartbeat_at)
    WHERE status IN ('online', 'degraded');
CREATE INDEX workspaces_instance_idx ON workspaces (instance_id) WHERE instance_id IS NOT NULL;
CREATE INDEX workspaces_hibernation_idx ON workspaces (hibernation_idle_minutes)
    WHERE hibernation_idle_minutes IS NOT NULL;
CREATE INDEX workspaces_teardown_idx ON workspaces (id) WHERE teardown_pending;

CREATE TABLE canvas_layouts (
    workspace_id uuid PRIMARY KEY REFERENCES workspaces (id) ON DELETE CASCADE,
    x            double precision NOT NULL DEFAULT 0,
    y            double precision NOT NULL DEFAULT 0,
    collapsed    boolean NOT NULL DEFAULT false
);

CREATE TABLE canvas_viewport (
    id       uuid PRIMARY KEY,
    x        double precision NOT NULL DEFAULT 0,
    y        double precision NOT NULL DEFAULT 0,
    zoom     double precision NOT NULL DEFAULT 1,
    saved_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE workspace_config (
    workspace_id uuid PRIMARY KEY REFERENCES workspaces (id) ON DELETE CASCADE,
    data         jsonb NOT NULL DEFAULT '{}',
    updated_at   timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE agents (
    id             uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    workspace_id   uuid NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
    model          text NOT NULL,
    status         text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'replaced', 'removed')),
    removed_at     timestamptz,
    removal_reason text,
    created_at     timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX agents_workspace_idx ON agents (workspace_id);
CREATE UNIQUE INDEX agents_one_active_uniq ON agents (workspace_id) WHERE status = 'active';

CREATE TABLE workspace_token_usage (
    id                 uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    workspace_id       uuid NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
    period_start       timestamptz NOT NULL,
    input_tokens       bigint NOT NULL DEFAULT 0,
    output_tokens      bigint NOT NULL DEFAULT 0,
    call_count         integer NOT NULL DEFAULT 0,
    estimated_cost_usd numeric(12, 6) NOT NULL DEFAULT 0,
    updated_at         timestamptz NOT NULL DEFAULT now(),
    UNIQUE (workspace_id, period_start)
);
