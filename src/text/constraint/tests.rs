use super::*;
use crate::text::tokenizer::Specials;
use crate::text::tokenizer::tests::small;

fn compile(schema: Value) -> Result<Constraint, ConstraintError> {
    ConstraintFactory::new(&small())
        .unwrap()
        .compile(&GrammarSpec::JsonSchema(schema))
}

/// Whether `text` follows the grammar to a place where it may end.
fn follows(mut constraint: Constraint, text: &str) -> bool {
    for token in small().encode(text, Specials::Text) {
        let allowed = constraint.mask().is_ok_and(|mask| mask.allows(token));
        if !allowed || constraint.accept(token).is_err() {
            return false;
        }
    }
    constraint.may_end()
}

fn accepts(schema: &Value, text: &str) -> bool {
    follows(compile(schema.clone()).unwrap(), text)
}
