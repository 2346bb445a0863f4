//! What every object of programs must hold beside its programs.

/// The panic handler, which no program reaches (the kernel takes no program that could), and the licence, which the kernel asks for before it
/// lends its helpers. Once in each binary.
#[macro_export]
macro_rules! object {
    () => {
        #[cfg(not(test))]
        #[panic_handler]
        fn panic(_: &core::panic::PanicInfo) -> ! {
            loop {}
        }

        #[unsafe(link_section = "license")]
        #[unsafe(no_mangle)]
        static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
    };
}
