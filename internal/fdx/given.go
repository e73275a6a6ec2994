package fdx

// EnvGiven names to a successor the descriptors, besides the standard ones, that the first
// process of its line was started with for all of them: see [Given].
const EnvGiven = "BATON_GIVEN"
