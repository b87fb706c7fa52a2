//! Conditions made ready to be evaluated often.
//!
//! Cedar copies the place of every expression with its value, looks an entity up whenever an attribute of it is read,
//! and takes a step for each name in a path. Here a condition is written again without places and with one attribute
//! of the context, under a letter, for each word of the vocabulary: `context.A` for `principal.spiffe_id`. Such
//! conditions are asked with a context of letters. A condition that does anything unusual stays as it is, and is asked
//! with the whole vocabulary.

use cedar_policy_core::ast::{Expr, ExprKind, Var};

use crate::vocabulary::Words;

/// How deep an expression may be that is written again.
const DEPTH_MAX: usize = 256;
/// No attribute of the vocabulary has a longer path.
const PATH_MAX: usize = 3;

/// A condition written again.
#[derive(Debug)]
pub(crate) struct Quick {
    pub(crate) condition: Expr,
    /// The words whose values it can depend on.
    pub(crate) words: Words,
}

impl Quick {
    /// None if the condition has to stay as it is.
    pub(crate) fn of(condition: &Expr) -> Option<Self> {
        let mut words = Words::default();
        let condition = rewritten(condition, DEPTH_MAX, &mut words)?;
        Some(Self { condition, words })
    }
}

fn rewritten(expr: &Expr, depth: usize, words: &mut Words) -> Option<Expr> {
    let depth = depth.checked_sub(1)?;
    let mut again = |part: &Expr| rewritten(part, depth, words);
    Some(match expr.expr_kind() {
        ExprKind::Lit(literal) => Expr::val(literal.clone()),
        ExprKind::Var(variable @ (Var::Principal | Var::Action | Var::Resource)) => Expr::var(*variable),
        ExprKind::GetAttr { .. } => {
            let (word, letter) = Words::at(&path(expr)?)?;
            *words = words.and(word);
            Expr::get_attr(Expr::var(Var::Context), letter.into())
        }
        ExprKind::If { test_expr, then_expr, else_expr } => {
            Expr::ite(again(test_expr)?, again(then_expr)?, again(else_expr)?)
        }
        ExprKind::And { left, right } => Expr::and(again(left)?, again(right)?),
        ExprKind::Or { left, right } => Expr::or(again(left)?, again(right)?),
        ExprKind::UnaryApp { op, arg } => Expr::unary_app(*op, again(arg)?),
        ExprKind::BinaryApp { op, arg1, arg2 } => Expr::binary_app(*op, again(arg1)?, again(arg2)?),
        ExprKind::Like { expr, pattern } => Expr::like(again(expr)?, pattern.clone()),
        ExprKind::Is { expr, entity_type } => Expr::is_entity_type(again(expr)?, entity_type.clone()),
        ExprKind::Set(items) => Expr::set(items.iter().map(again).collect::<Option<Vec<_>>>()?),
        // The bare context or a record of it; an attribute of something that is no variable, as of a named entity.
        _ => return None,
    })
}

/// The path of an attribute of a variable, as it is written.
fn path(mut expr: &Expr) -> Option<String> {
    let mut names = Vec::new();
    loop {
        match expr.expr_kind() {
            ExprKind::Var(variable) => {
                let mut path = variable.to_string();
                for name in names.into_iter().rev() {
                    path.push('.');
                    path.push_str(name);
                }
                return Some(path);
            }
            ExprKind::GetAttr { expr: of, attr } if names.len() < PATH_MAX => {
                names.push(attr.as_str());
                expr = of;
            }
            _ => return None,
        }
    }
}
