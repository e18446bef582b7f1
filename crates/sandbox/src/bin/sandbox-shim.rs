//! The shim alone, for this crate's tests: what the product does when called as `coracle shim …`.

fn main() {
    sandbox::shim::main(std::env::args_os().skip(2))
}
