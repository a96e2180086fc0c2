//! The guard of the status machine in every test database.

use mws_models::EDGES;

/// Creates a trigger that refuses a status change outside [`EDGES`] (1.R119). Rows may be inserted in any
/// status: a test starts where it likes.
pub(crate) fn guard() -> String {
    let edges: Vec<String> = EDGES.iter().map(|edge| format!("('{}', '{}')", edge.from, edge.to)).collect();
    format!(
        "CREATE FUNCTION mws_test_guard_status() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
             IF (OLD.status::text, NEW.status::text) NOT IN ({}) THEN
                 RAISE EXCEPTION 'workspace status % -> % is no edge of the machine (1.R119)',
                     OLD.status, NEW.status;
             END IF;
             RETURN NULL;
         END $$;
         CREATE TRIGGER mws_test_guard_status AFTER UPDATE ON workspaces FOR EACH ROW
             WHEN (OLD.status IS DISTINCT FROM NEW.status) EXECUTE FUNCTION mws_test_guard_status();",
        edges.join(", ")
    )
}
