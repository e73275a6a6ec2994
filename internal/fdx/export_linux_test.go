package fdx

var (
	CountOpen   = countOpen
	CountListed = countListed
	RaiseIn     = raiseNoFile
)
