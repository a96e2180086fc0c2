-- Plugins, channels, schedules, memory, approvals and the rest (contracts 6 §15 and 7).

CREATE TABLE org_plugin_allowlist (
    id          uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    org_id      uuid NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
    plugin_name text NOT NULL,
    enabled_by  text NOT NULL,
    enabled_at  timestamptz NOT NULL DEFAULT now(),
    UNIQUE (org_id, plugin_name)
);

CREATE TABLE workspace_channels (
    id              uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    workspace_id    uuid NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
    channel_type    text NOT NULL,
    channel_config  jsonb NOT NULL DEFAULT '{}',
    enabled         boolean NOT NULL DEFAULT true,
    allowed_users   jsonb DEFAULT '[]',
    last_message_at timestamptz,
    message_count   integer NOT NULL DEFAULT 0,
    channel_budget  integer,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX idx_channels_workspace_type ON workspace_channels (workspace_id, channel_type);
CREATE INDEX idx_channels_lookup ON workspace_channels (channel_type, enabled) WHERE enabled;

CREATE TABLE workspace_schedules (
    id                     uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    workspace_id           uuid NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
    name                   text NOT NULL DEFAULT '',
    cron_expr              text NOT NULL,
    timezone               text NOT NULL DEFAULT 'UTC',
    prompt                 text NOT NULL,
    enabled                boolean NOT NULL DEFAULT true,
    last_run_at            timestamptz,
    next_run_at            timestamptz,
    run_count              integer NOT NULL DEFAULT 0,
    last_status            text DEFAULT '',
    last_error             text DEFAULT '',
    source                 text NOT NULL DEFAULT 'runtime' CHECK (source IN ('template', 'runtime')),
    consecutive_empty_runs integer NOT NULL DEFAULT 0,
    created_at             timestamptz NOT NULL DEFAULT now(),
    updated_at             timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX workspace_schedules_workspace_idx ON workspace_schedules (workspace_id);
CREATE INDEX workspace_schedules_due_idx ON workspace_schedules (enabled, next_run_at) WHERE enabled;
CREATE UNIQUE INDEX idx_schedules_workspace_name ON workspace_schedules (workspace_id, name);

CREATE TABLE workspace_memory (
    id           uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    workspace_id uuid NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
    key          text NOT NULL,
    value        jsonb NOT NULL,
    expires_at   timestamptz,
    updated_at   timestamptz NOT NULL DEFAULT now(),
    version      bigint NOT NULL DEFAULT 1,
    UNIQUE (workspace_id, key)
);
CREATE INDEX workspace_memory_workspace_idx ON workspace_memory (workspace_id);

CREATE TABLE agent_memories (
    id           uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    workspace_id uuid REFERENCES workspaces (id),
    content      text NOT NULL,
    scope        varchar(10) NOT NULL CHECK (scope IN ('LOCAL', 'TEAM', 'GLOBAL')),
    namespace    varchar(50) NOT NULL DEFAULT 'general',
    content_tsv  tsvector GENERATED ALWAYS AS (to_tsvector('english', content)) STORED,
    created_at   timestamptz DEFAULT now(),
    updated_at   timestamptz DEFAULT now()
);
CREATE INDEX agent_memories_workspace_idx ON agent_memories (workspace_id);
CREATE INDEX agent_memories_scope_idx ON agent_memories (scope);
CREATE INDEX agent_memories_namespace_idx ON agent_memories (workspace_id, namespace);
CREATE INDEX agent_memories_text_idx ON agent_memories USING gin (content_tsv);

-- Similarity search needs pgvector, which is optional.
DO $$
BEGIN
    IF EXISTS (SELECT 1 FROM pg_extension WHERE extname = 'vector') THEN
        ALTER TABLE agent_memories ADD COLUMN embedding vector(1536);
        CREATE INDEX agent_memories_embedding_idx ON agent_memories
            USING ivfflat (embedding vector_cosine_ops) WHERE embedding IS NOT NULL;
    END IF;
END
$$;

CREATE TABLE approval_requests (
    id           uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    workspace_id uuid REFERENCES workspaces (id),
    task_id      text,
    action       text NOT NULL,
    reason       text,
    context      jsonb DEFAULT '{}',
    status       text DEFAULT 'pending' CHECK (status IN ('pending', 'approved', 'denied', 'escalated')),
    decided_by   text,
    decided_at   timestamptz,
    created_at   timestamptz DEFAULT now()
);
CREATE INDEX approval_requests_workspace_idx ON approval_requests (workspace_id);
CREATE INDEX approval_requests_status_idx ON approval_requests (status);

CREATE TABLE workflow_checkpoints (
    id           uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    workspace_id uuid NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
    workflow_id  text NOT NULL,
    step_name    text NOT NULL,
    step_index   integer NOT NULL,
    completed_at timestamptz NOT NULL DEFAULT now(),
    payload      jsonb,
    UNIQUE (workspace_id, workflow_id, step_name)
);
CREATE INDEX workflow_checkpoints_workflow_idx
    ON workflow_checkpoints (workspace_id, workflow_id, completed_at DESC);
CREATE INDEX workflow_checkpoints_latest_idx ON workflow_checkpoints (workspace_id, completed_at DESC);

CREATE TABLE platform_instructions (
    id           uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    scope        text NOT NULL CHECK (scope IN ('global', 'team', 'workspace')),
    scope_target text,
    title        text NOT NULL CHECK (length(title) <= 200),
    content      text NOT NULL CHECK (length(content) <= 8192),
    priority     integer DEFAULT 0,
    enabled      boolean DEFAULT true,
    created_at   timestamptz DEFAULT now(),
    updated_at   timestamptz DEFAULT now()
);
CREATE INDEX platform_instructions_scope_idx ON platform_instructions (scope, scope_target) WHERE enabled;

CREATE TABLE workspace_artifacts (
    id           uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    workspace_id uuid NOT NULL UNIQUE REFERENCES workspaces (id) ON DELETE CASCADE,
    cf_repo_name text NOT NULL,
    cf_namespace text NOT NULL,
    remote_url   text,
    description  text,
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX workspace_artifacts_repo_idx ON workspace_artifacts (cf_namespace, cf_repo_name);
