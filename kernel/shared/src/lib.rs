//! Map layouts, packet parser, verdict and token bucket: shared by the kernel programs and user space.
