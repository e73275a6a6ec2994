package wire

// The protocol versions that this code speaks.
const (
	MinVersion uint32 = 1
	MaxVersion uint32 = 1
)

// Choose returns the newest version that both this code and a peer that speaks
// the versions minVersion to maxVersion know. It returns false if there is none.
func Choose(minVersion, maxVersion uint32) (uint32, bool) {
	v := min(maxVersion, MaxVersion)
	if v < minVersion || v < MinVersion {
		return 0, false
	}
	return v, true
}
