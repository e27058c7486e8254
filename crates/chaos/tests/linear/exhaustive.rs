//! The definition, tried in full: every order of the calls that respects time, with each call whose answer was lost in
//! any place or in none.

use holon_chaos::linear::{Effect, Model, Operation};

pub fn is_linearisable<M: Model>(model: &M, history: &[Operation<M::Call, M::Answer>]) -> bool {
    let open: Vec<usize> = (0..history.len()).collect();
    some_order_explains(model, history, &open, &model.start())
}

fn some_order_explains<M: Model>(
    model: &M,
    history: &[Operation<M::Call, M::Answer>],
    open: &[usize],
    state: &M::State,
) -> bool {
    if open.iter().all(|call| history[*call].answered.is_none()) {
        return true;
    }
    open.iter().any(|next| {
        // Whatever was answered before this one began comes before it.
        let comes_first = open.iter().any(|other| {
            let answered = history[*other].answered.as_ref();
            answered.is_some_and(|(at, _)| *at < history[*next].started)
        });
        if comes_first {
            return false;
        }
        let operation = &history[*next];
        let answer = operation.answered.as_ref().map(|(_, answer)| answer);
        let after = match model.apply(state, *next, &operation.call, answer) {
            Effect::Impossible => return false,
            Effect::Nothing => state.clone(),
            Effect::Becomes(after) => after,
        };
        let rest: Vec<usize> = open.iter().copied().filter(|call| call != next).collect();
        some_order_explains(model, history, &rest, &after)
    })
}
