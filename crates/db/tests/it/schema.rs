//! What the schema and the code both say, they say alike.

use mws_models::{EXTERNAL_LIKE_RUNTIMES, WorkspaceStatus};
use mws_testkit::TestDatabase;

#[tokio::test]
async fn the_schema_and_the_models_have_the_same_names() {
    let database = TestDatabase::create().await;

    // 1.R120, 3.R6, 1.R62
    let labels = database.column("SELECT unnest(enum_range(NULL::workspace_status))::text").await;
    let names: Vec<_> = WorkspaceStatus::ALL.iter().map(|status| Some(status.as_str().to_owned())).collect();
    assert_eq!(labels, names);

    let quoted = EXTERNAL_LIKE_RUNTIMES.map(|runtime| format!("'{runtime}'")).join(", ");
    let body = database.value("SELECT prosrc FROM pg_proc WHERE proname = 'is_external_like'").await;
    assert_eq!(body.as_deref().map(str::trim), Some(&*format!("SELECT runtime IN ({quoted})")));
}
