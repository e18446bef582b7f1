//! Runs every plan: load, plan, apply, requeue, back off
