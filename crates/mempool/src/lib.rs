//! Admission, batches, availability and quotas; builds and judges a block's header and body.
