-- Tokens, secrets, audit (contract 5).

CREATE TABLE workspace_auth_tokens (
    id           uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    workspace_id uuid NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
    token_hash   bytea NOT NULL UNIQUE,
    prefix       text NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    last_used_at timestamptz,
    revoked_at   timestamptz,
    issued_by    text
);
CREATE INDEX workspace_auth_tokens_live_idx ON workspace_auth_tokens (workspace_id) WHERE revoked_at IS NULL;

CREATE TABLE org_api_tokens (
    id              uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    token_hash      bytea NOT NULL UNIQUE,
    prefix          text NOT NULL,
    name            text,
    created_by      text,
    created_by_user text,
    org_id          uuid REFERENCES workspaces (id) ON DELETE SET NULL,
    created_at      timestamptz NOT NULL DEFAULT now(),
    last_used_at    timestamptz,
    revoked_at      timestamptz,
    expires_at      timestamptz
);
CREATE INDEX org_api_tokens_live_idx ON org_api_tokens (token_hash) WHERE revoked_at IS NULL;
CREATE INDEX org_api_tokens_org_idx ON org_api_tokens (org_id) WHERE org_id IS NOT NULL;

CREATE TABLE workspace_secrets (
    id                 uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    workspace_id       uuid NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
    key                text NOT NULL,
    encrypted_value    bytea NOT NULL,
    encryption_version integer NOT NULL DEFAULT 0,
    created_at         timestamptz NOT NULL DEFAULT now(),
    updated_at         timestamptz NOT NULL DEFAULT now(),
    UNIQUE (workspace_id, key)
);

CREATE TABLE global_secrets (
    id                 uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    key                text NOT NULL UNIQUE,
    encrypted_value    bytea NOT NULL,
    encryption_version integer NOT NULL DEFAULT 0,
    created_at         timestamptz NOT NULL DEFAULT now(),
    updated_at         timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE audit_events (
    id                   text PRIMARY KEY,
    timestamp            timestamptz NOT NULL,
    agent_id             text NOT NULL,
    session_id           text NOT NULL,
    operation            text NOT NULL CHECK (operation IN ('task_start', 'llm_call', 'tool_call', 'task_end')),
    input_hash           text,
    output_hash          text,
    model_used           text,
    human_oversight_flag boolean NOT NULL DEFAULT false,
    risk_flag            boolean NOT NULL DEFAULT false,
    prev_hmac            text,
    hmac                 text NOT NULL,
    workspace_id         uuid NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE
);
CREATE INDEX audit_events_agent_idx ON audit_events (agent_id);
CREATE INDEX audit_events_session_idx ON audit_events (session_id);
CREATE INDEX audit_events_workspace_idx ON audit_events (workspace_id);
CREATE INDEX audit_events_time_idx ON audit_events (timestamp DESC);

CREATE TABLE security_events (
    id     uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    at     timestamptz NOT NULL DEFAULT now(),
    actor  text NOT NULL,
    action text NOT NULL,
    target text,
    status integer,
    remote text
);
CREATE INDEX security_events_time_idx ON security_events (at DESC);
