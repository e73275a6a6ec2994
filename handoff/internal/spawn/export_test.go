package spawn

import "os"

// ConversationFD reads the descriptor of the conversation from the environment.
func ConversationFD(v string) (int, error) { return conversationFD(v) }

// Writer is the writing end of the pipe.
func (c *Capture) Writer() *os.File { return c.w }

// Folder returns the working directory by the path that led there.
func Folder(program string) (string, error) { return folder(program) }

// Own returns the path of the program of this process.
func Own(name, wd string) string { return own(name, wd) }

// WithRoot returns p as it was found below a root folder.
func WithRoot(p Program, root os.FileInfo) *Program {
	p.root = root
	return &p
}

// Started parses what the kernel shows of the environment.
func Started(b []byte) ([]string, bool) { return started(b) }
