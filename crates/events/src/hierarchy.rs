//! Who may talk to whom: the tree of workspaces is the policy (contract 3.5).

use mws_models::WorkspaceId;

/// Steps that the walk towards the root makes beyond the parent (3.R42).
pub const MAX_STEPS: usize = 32;

/// Whether two workspaces may talk: the same one, siblings (all roots are), or one above the other at any
/// distance up to [`MAX_STEPS`] + 1.
///
/// `parent_of` knows a row's parent: `None` for a missing row, `Some(None)` for a root. `None` comes back when
/// a row that the answer hangs on is missing, which means "no" unless the row can still be found.
pub fn can_communicate(
    caller: WorkspaceId,
    target: WorkspaceId,
    parent_of: impl Fn(WorkspaceId) -> Option<Option<WorkspaceId>>,
) -> Option<bool> {
    if caller == target {
        return Some(true);
    }
    let (above_caller, above_target) = (parent_of(caller)?, parent_of(target)?);
    if above_caller == above_target {
        return Some(true);
    }
    let down = is_above(caller, target, above_target, &parent_of);
    if down == Some(true) {
        return down;
    }
    let up = is_above(target, caller, above_caller, &parent_of);
    if up == Some(true) { up } else { down.and(up) }
}

/// Whether `ancestor` is on the way from `from`, whose parent is given, to its root.
fn is_above(
    ancestor: WorkspaceId,
    from: WorkspaceId,
    parent: Option<WorkspaceId>,
    parent_of: impl Fn(WorkspaceId) -> Option<Option<WorkspaceId>>,
) -> Option<bool> {
    let mut passed = vec![from];
    let mut next = parent;
    while let Some(id) = next {
        if id == ancestor {
            return Some(true);
        }
        // `passed` holds the start too, so its length is the number of steps made so far.
        if passed.contains(&id) || passed.len() > MAX_STEPS {
            return Some(false);
        }
        passed.push(id);
        next = parent_of(id)?;
    }
    Some(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    type Tree = HashMap<WorkspaceId, Option<WorkspaceId>>;

    fn ask(tree: &Tree, a: WorkspaceId, b: WorkspaceId) -> Option<bool> {
        can_communicate(a, b, |id| tree.get(&id).copied())
    }

    /// Each entry's parent by index; ids as a list.
    fn tree(parents: &[Option<usize>]) -> (Tree, Vec<WorkspaceId>) {
        let ids: Vec<_> = parents.iter().map(|_| WorkspaceId::random()).collect();
        let rows = parents.iter().zip(&ids).map(|(parent, id)| (*id, parent.map(|p| ids[p]))).collect();
        (rows, ids)
    }

    #[test]
    fn the_table() {
        // 3.R41
        // 0 lead, 1 and 2 its members, 3 below 1, 4 below 2, 5 another root, 6 below 5
        let (rows, ids) = tree(&[None, Some(0), Some(0), Some(1), Some(2), None, Some(5)]);
        let allowed = [(0, 1), (0, 2), (0, 3), (0, 4), (1, 2), (1, 3), (2, 4), (0, 5), (5, 6)];
        for a in 0..ids.len() {
            for b in 0..ids.len() {
                let expected = a == b || allowed.contains(&(a.min(b), a.max(b)));
                assert_eq!(ask(&rows, ids[a], ids[b]), Some(expected), "{a} to {b}");
            }
        }
    }

    #[test]
    fn a_missing_row_is_no_yes() {
        // 3.R41 1 and 2
        let (mut rows, ids) = tree(&[None, Some(0), Some(1), Some(2)]);
        let stranger = WorkspaceId::random();
        assert_eq!(ask(&rows, stranger, stranger), Some(true));
        assert_eq!(ask(&rows, ids[0], stranger), None);
        assert_eq!(ask(&rows, stranger, ids[0]), None);
        assert_eq!(ask(&rows, stranger, WorkspaceId::random()), None);
        rows.remove(&ids[1]);
        assert_eq!(ask(&rows, ids[0], ids[3]), None);
    }

    #[test]
    fn the_walk_ends_32_steps_beyond_the_parent() {
        // 3.R42
        let chain: Vec<_> = (0..40).map(|n: usize| n.checked_sub(1)).collect();
        let (rows, ids) = tree(&chain);
        for (depth, expected) in [(1, true), (32, true), (33, true), (34, false), (39, false)] {
            assert_eq!(ask(&rows, ids[0], ids[depth]), Some(expected), "down {depth}");
            assert_eq!(ask(&rows, ids[depth], ids[0]), Some(expected), "up {depth}");
        }
    }

    #[test]
    fn cycles_end_in_no() {
        // 3.R42
        // 0 > 1 > 2 > 0; 3 below 1; 4 its own parent; 5 a root
        let (rows, ids) = tree(&[Some(2), Some(0), Some(1), Some(1), Some(4), None]);
        for other in [4, 5] {
            for one in 0..4 {
                assert_eq!(ask(&rows, ids[one], ids[other]), Some(false));
                assert_eq!(ask(&rows, ids[other], ids[one]), Some(false));
            }
        }
        assert_eq!(ask(&rows, ids[4], ids[5]), Some(false));
        assert_eq!(ask(&rows, ids[4], ids[4]), Some(true));
    }

    /// The rules word by word, with no regard for cost.
    fn model(rows: &Tree, a: WorkspaceId, b: WorkspaceId) -> bool {
        let ancestors = |id: WorkspaceId| {
            let mut list = Vec::new();
            let mut next = rows[&id];
            while let Some(parent) = next {
                list.push(parent);
                let repeated = parent == id || list[..list.len() - 1].contains(&parent);
                if repeated || list.len() == 1 + MAX_STEPS {
                    break;
                }
                next = rows[&parent];
            }
            list
        };
        a == b || rows[&a] == rows[&b] || ancestors(b).contains(&a) || ancestors(a).contains(&b)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn it_agrees_with_the_rules_and_is_symmetric(
            parents in (2_usize..48).prop_flat_map(|n| {
                // mostly long chains, some shortcuts, roots and cycles
                let one = prop_oneof![1 => Just(None), 3 => (0..n).prop_map(Some)];
                let entries: Vec<_> = (0..n)
                    .map(|i| prop_oneof![8 => Just(i.checked_sub(1)), 1 => one.clone()].boxed())
                    .collect();
                entries
            }),
        ) {
            let (rows, ids) = tree(&parents);
            for &a in &ids {
                for &b in &ids {
                    let answer = ask(&rows, a, b);
                    prop_assert_eq!(answer, Some(model(&rows, a, b)));
                    prop_assert_eq!(answer, ask(&rows, b, a));
                }
            }
        }
    }
}
