//! What the schema and the code both say, they say alike.

use std::collections::BTreeSet;

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

/// A column as the contract's table and the database print it.
type Column = (String, String, bool, Option<String>);

/// The table of 1.R160.
fn columns_of_the_contract() -> BTreeSet<Column> {
    let text = include_str!("../../../../docs/contract/01-workspaces.md");
    let table = text.split("- **1.R160**").nth(1).unwrap().split("- **1.R161**").next().unwrap();
    let mut columns = BTreeSet::new();
    for row in table.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
        let kind = match cells[1] {
            "timestamptz" => "timestamp with time zone",
            "varchar(20)" => "character varying(20)",
            kind => kind.trim_matches('`'),
        };
        let default = match cells[3].trim_matches('`') {
            "" => None,
            "gen" => Some("gen_random_uuid()".to_owned()),
            "{}" => Some("'{}'::jsonb".to_owned()),
            word @ "none" => Some(format!("'{word}'::character varying")),
            word @ "provisioning" => Some(format!("'{word}'::workspace_status")),
            word @ "claude-code" => Some(format!("'{word}'::text")),
            plain => Some(plain.to_owned()),
        };
        for name in cells[0].split(',') {
            let name = name.trim().trim_matches('`').to_owned();
            columns.insert((name, kind.to_owned(), cells[2] == "yes", default.clone()));
        }
    }
    columns
}

#[tokio::test]
async fn the_workspace_table_is_the_contracts() {
    // 1.R160: every column with its type, nullability and default, and no other.
    let database = TestDatabase::create().await;
    let described = database
        .column(
            "SELECT jsonb_build_array(a.attname, format_type(a.atttypid, a.atttypmod), NOT a.attnotnull,
                                      pg_get_expr(d.adbin, d.adrelid))::text
             FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
             WHERE a.attrelid = 'workspaces'::regclass AND a.attnum > 0 AND NOT a.attisdropped",
        )
        .await;
    let actual: BTreeSet<Column> =
        described.into_iter().map(|row| serde_json::from_str(&row.unwrap()).unwrap()).collect();
    let expected = columns_of_the_contract();
    assert!(expected.len() >= 40, "the table was not read: {}", expected.len());
    assert_eq!(actual, expected);
}
